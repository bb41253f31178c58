"""Given: what a loop over tiles is given, and the programs of one tile of one head."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from miras.engine.chunk import Fast, Tile
from miras.engine.tile import Constants
from miras.kernels.program import Program, trace
from miras.typing import Array


class Flags(NamedTuple):
    """A tile's flags [N, B], bool; None where the step is given none."""

    fresh: Array | None
    fire: Array
    reset: Array | None


class Streams(NamedTuple):
    """What of a tile has a gradient; see `Tile`."""

    q: Array
    k: Array
    v: Array
    k_write: Array | None
    gates: dict[str, Array]
    write: Array


class Given(NamedTuple):
    """What a loop over tiles is given: leaves [H, ...], [B, H, ...], [N, B, H, C, ...], [N, B]."""

    constants: Constants
    memory: Fast
    streams: Streams
    flags: Flags

    def of_one_tile(self) -> "Given":
        """The shapes for one tile of one head."""
        return Given(*(own(tree, lead) for tree, lead in zip(self, (1, 2, 3, 2))))


def given(constants: Constants, memory: Fast, tiles: Tile, resets: Array | None) -> Given:
    """The arguments of a loop over tiles, see `engine.xla.Loop`, by their shapes."""
    streams = Streams(*(getattr(tiles, name) for name in Streams._fields))
    write = jnp.broadcast_to(tiles.write[:, :, None], tiles.q.shape[:4])
    flags = Flags(tiles.fresh, tiles.fire, resets)
    return Given(constants, memory, streams._replace(write=write), flags)


def own(tree: Any, lead: int) -> Any:
    """The shapes of leaves without their first dimensions."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), tree)


def given_by(
    run: Callable[..., Any],
    tile: int,
    through: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda loop: loop,
) -> tuple[Callable[..., Any], Given]:
    """The step, and the shapes of what a loop over tiles is given, through what is around it."""
    found: list[Any] = []

    def record(step, *args):
        loop = given(*args)
        found.append((step, own(loop, 0)))
        lead, width = loop.streams.q.shape[:4], loop.streams.v.shape[-1]
        dtype = jax.tree.leaves(loop.memory)[0].dtype
        return loop.memory, jnp.zeros((*lead, width), dtype), jnp.zeros(lead, dtype)

    jax.eval_shape(lambda: run(loop=through(record), tile=tile))
    return found[0]


def forward_program(step: Callable[..., Any], given: Given) -> Program:
    """(flags, constants, memory, streams) -> (memory, y, loss), for one tile of one head."""
    one = given.of_one_tile()
    return trace(on_tile(step), one.flags, one.constants, one.memory, one.streams)


def backward_program(step: Callable[..., Any], given: Given) -> Program:
    """(flags, constants, memory, streams, cotangents) -> cotangents of the middle three."""
    one = given.of_one_tile()
    forward = on_tile(step)

    def backward(flags, constants, memory, streams, cotangents):
        _, pull = jax.vjp(functools.partial(forward, flags), constants, memory, streams)
        return pull(cotangents)

    shapes = one.flags, one.constants, one.memory, one.streams
    return trace(backward, *shapes, jax.eval_shape(forward, *shapes))


def on_tile(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step as a function of flags, constants, memory and streams."""

    def run(flags: Flags, constants: Constants, memory: Fast, streams: Streams):
        tile = Tile(*streams, fresh=flags.fresh, fire=flags.fire)
        return step(constants, memory, tile, flags.reset)

    return run
