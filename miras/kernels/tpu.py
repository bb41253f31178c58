"""TPU kernels: the tile step traced into Pallas, forward and backward.

The grid is (rows x heads, groups of tiles): heads in parallel, a head's groups in order, its memory
in VMEM between them. The forward kernel saves the memory before every group; the backward kernel
goes through the groups from last to first, steps again from the saved memory to those between, and
its body is `jax.vjp` of the same step. What a tile does is `engine.tile.tile_step`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from miras.engine.chunk import Fast, Tile
from miras.engine.tile import Constants
from miras.kernels.forms import leave
from miras.kernels.grid import Flags, Grid, Layout, copy, like, own, read, vmem, write
from miras.kernels.operations import run
from miras.kernels.program import Program, trace
from miras.typing import Array


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


def in_kernel(step: Callable[..., Any], *args: Any, layout: Layout) -> tuple[Fast, Array, Array]:
    """As `engine.xla.in_order`, in a kernel.

    Args:
        step: `tile_step` of a rule.
        *args: see `given`.
        layout: how the kernel goes through the tiles.
    """
    return _run(step, layout, *given(*args))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(step, layout, constants, memory, streams, flags):
    return _forward(step, layout, Given(constants, memory, streams, flags))[0]


def _run_fwd(step, layout, constants, memory, streams, flags):
    out, saved = _forward(step, layout, Given(constants, memory, streams, flags))
    return out, (constants, streams, flags, saved)


def _run_bwd(step, layout, kept, cotangents):
    return (*_backward(step, layout, *kept, cotangents), None)


_run.defvjp(_run_fwd, _run_bwd)


def forward_program(step: Callable[..., Any], given: Given) -> Program:
    """(flags, constants, memory, streams) -> (memory, y, loss), for one tile of one head."""
    one = given.of_one_tile()
    return trace(_on_tile(step), one.flags, one.constants, one.memory, one.streams)


def backward_program(step: Callable[..., Any], given: Given) -> Program:
    """(flags, constants, memory, streams, cotangents) -> cotangents of the middle three."""
    one = given.of_one_tile()
    forward = _on_tile(step)

    def backward(flags, constants, memory, streams, cotangents):
        _, pull = jax.vjp(functools.partial(forward, flags), constants, memory, streams)
        return pull(cotangents)

    shapes = one.flags, one.constants, one.memory, one.streams
    return trace(backward, *shapes, jax.eval_shape(forward, *shapes))


def _on_tile(step: Callable[..., Any]) -> Callable[..., Any]:
    def on_tile(flags: Flags, constants: Constants, memory: Fast, streams: Streams):
        tile = Tile(*streams, fresh=flags.fresh, fire=flags.fire)
        return step(constants, memory, tile, flags.reset)

    return on_tile


def _forward(step: Callable[..., Any], layout: Layout, given: Given):
    """(memory, y, loss), and the memories before each group of tiles."""
    program, one = forward_program(step, given), given.of_one_tile()
    sizes = given.streams.q.shape[:3]
    grid = Grid(sizes, layout)
    results = jax.eval_shape(_on_tile(step), one.flags, one.constants, one.memory, one.streams)
    every = lambda tree, *lead: jax.tree.map(  # noqa: E731
        lambda s: jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype), tree
    )
    y_loss = every(results[1:], *sizes)
    inputs = {
        "captured": grid.whole(program.constants),
        "constants": grid.by_head(given.constants),
        "memory": grid.by_row(given.memory),
        "streams": grid.by_tile(given.streams),
    }
    outputs = {
        "memory": grid.by_row(own(given.memory, 0)),
        "y_loss": grid.by_tile(y_loss),
        "saved": grid.by_group(every(own(given.memory, 0), grid.groups)),
    }

    def kernel(flags, inputs, outputs, scratch):
        held = scratch["memory"]
        captured = read(inputs["captured"], own(program.constants, 0))
        constants = read(inputs["constants"], one.constants)

        @pl.when(pl.program_id(1) == 0)
        def _():
            copy(inputs["memory"], held)

        copy(held, outputs["saved"])

        def tile(i):
            at = grid.flags(flags, given.flags, i)
            streams = read(inputs["streams"], one.streams, i)
            memory, *y_loss = program(run, captured, at, constants, read(held, one.memory), streams)
            write(held, memory)
            write(outputs["y_loss"], tuple(y_loss), i)

        grid.forwards(tile)
        copy(held, outputs["memory"])

    scratch = {"memory": vmem(one.memory)}
    out = grid.call(kernel, "miras_forward", given.flags, inputs, outputs, scratch)
    y, loss = like(out["y_loss"], y_loss)
    return (like(out["memory"], given.memory), y, loss), out["saved"]


def _backward(step, layout: Layout, constants, streams, flags, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, *d_read = cotangents
    given = Given(constants, d_memory, streams, flags)
    again, back = forward_program(step, given), backward_program(step, given)
    one = given.of_one_tile()
    grid = Grid(streams.q.shape[:3], layout, reverse=True)
    inputs = {
        "again": grid.whole(again.constants),
        "back": grid.whole(back.constants),
        "constants": grid.by_head(constants),
        "streams": grid.by_tile(streams),
        "saved": grid.by_group(saved),
        "d_memory": grid.by_row(d_memory),
        "d_read": grid.by_tile(d_read),
    }
    by_row = jax.tree.map(lambda x: jax.ShapeDtypeStruct((grid.rows, *x.shape), x.dtype), constants)
    outputs = {
        "constants": grid.by_row(by_row),
        "memory": grid.by_row(own(d_memory, 0)),
        "streams": grid.by_tile(own(streams, 0)),
    }

    def kernel(flags, inputs, outputs, scratch):
        between, held, total = scratch["between"], scratch["memory"], scratch["constants"]
        for_again = read(inputs["again"], own(again.constants, 0))
        for_back = read(inputs["back"], own(back.constants, 0))
        constants = read(inputs["constants"], one.constants)

        def start(i):
            streams = read(inputs["streams"], one.streams, i)
            at = grid.flags(flags, given.flags, i)
            return at, constants, read(between, one.memory, i), streams

        @pl.when(pl.program_id(1) == 0)
        def _():
            copy(inputs["d_memory"], held)
            write(total, jax.tree.map(jnp.zeros_like, constants))

        write(between, read(inputs["saved"], one.memory), 0)

        def forwards(i):
            memory, _, _ = again(run, for_again, *start(i))
            write(between, memory, i + 1)

        def backwards(i):
            ends = (read(held, one.memory), *read(inputs["d_read"], own(d_read, 3), i))
            d_constants, d_memory, d_streams = back(run, for_back, *start(i), ends)
            write(held, d_memory)
            write(outputs["streams"], d_streams, i)
            write(total, jax.tree.map(lambda a, b: a + leave(b), read(total, one.constants), d_constants))

        grid.forwards(forwards, but_last=True)
        grid.backwards(backwards)
        copy(held, outputs["memory"])
        copy(total, outputs["constants"])

    scratch = {
        "between": vmem(one.memory, grid.group),
        "memory": vmem(one.memory),
        "constants": vmem(one.constants),
    }
    out = grid.call(kernel, "miras_backward", flags, inputs, outputs, scratch)
    d_constants = jax.tree.map(lambda x: jnp.sum(x, axis=0), like(out["constants"], by_row))
    return d_constants, like(out["memory"], d_memory), like(out["streams"], streams)
