"""Given: what a loop over tiles is given."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.state import State
from miras.engine.step import Tile
from miras.engine.tile import Constants


class Flags(NamedTuple):
    """A tile's flags [N, B], bool; None where the step is given none."""

    chunk_start: Array | None
    chunk_end: Array
    reset: Array | None


class Given(NamedTuple):
    """What a loop over tiles is given: leaves [H, ...], [B, H, ...], [N, B, H, C, ...], [N, B].

    Constants and memory are those of a rule, or the leaves of them that count; see `Carried`.
    Streams are the tiles without their flags: what has a gradient.
    """

    constants: Any
    memory: Any
    streams: Tile
    flags: Flags

    def sizes(self) -> tuple[int, int, int]:
        """Tiles N, rows B and heads H."""
        tiles, rows, heads, *_ = self.streams.q.shape
        return tiles, rows, heads

    def of_one_tile(self) -> "Given":
        """The shapes for one tile of one head."""
        return Given(*(own(tree, lead) for tree, lead in zip(self, (1, 2, 3, 2))))


def given(constants: Constants, memory: State, tiles: Tile, resets: Array | None) -> Given:
    """The arguments of a loop over tiles, see `xla.loop.Loop`, each with those of its shape."""
    write = jnp.broadcast_to(tiles.write[:, :, None], tiles.q.shape[:4])
    flags = Flags(tiles.chunk_start, tiles.chunk_end, resets)
    streams = tiles._replace(write=write, chunk_start=None, chunk_end=None)
    return Given(constants, memory, streams, flags)


def own(tree: Any, lead: int) -> Any:
    """The shapes of leaves without their first dimensions."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), tree)
