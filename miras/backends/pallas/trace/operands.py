"""Operands of a scan over tiles, with the dimensions that a kernel's grid goes over in front."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from miras.array_typing import Array
from miras.backends.pallas.trace.program import shapes_of
from miras.engine.state import State
from miras.engine.step import Tile
from miras.engine.tile import Constants


class TileFlags(NamedTuple):
    """A tile's flags [N, B], bool; None where the step takes none."""

    chunk_start: Array | None
    chunk_end: Array
    reset: Array | None


class ScanOperands(NamedTuple):
    """What a scan over N tiles, B rows and H heads reads.

    Attributes:
        constants: leaves [H, ...], those of a rule or the live ones of them, see `LiveStep`.
        memory: leaves [B, H, ...], likewise.
        streams: leaves [N, B, H, C, ...]: the tiles without their flags, all that has a gradient.
        flags: leaves [N, B].
    """

    constants: Any
    memory: Any
    streams: Tile
    flags: TileFlags

    def sizes(self) -> tuple[int, int, int]:
        """Tiles N, rows B and heads H."""
        tiles, rows, heads, *_ = self.streams.q.shape
        return tiles, rows, heads

    def tile_shapes(self) -> "ScanOperands":
        """The shapes for one tile of one head."""
        return ScanOperands(*(shapes_of(tree, lead) for tree, lead in zip(self, (1, 2, 3, 2))))


def scan_operands(
    constants: Constants, memory: State, tiles: Tile, resets: Array | None
) -> ScanOperands:
    """The arguments of a `backends.xla.loop.Loop`, each with all dimensions of its kind."""
    write = jnp.broadcast_to(tiles.write[:, :, None], tiles.q.shape[:4])
    flags = TileFlags(tiles.chunk_start, tiles.chunk_end, resets)
    streams = tiles._replace(write=write, chunk_start=None, chunk_end=None)
    return ScanOperands(constants, memory, streams, flags)
