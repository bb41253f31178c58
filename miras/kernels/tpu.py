"""TPU kernels: the tile step traced into Pallas, forward and backward.

The grid is (rows x heads, groups of tiles): heads in parallel, a head's groups in order, its memory
in VMEM between them. The forward kernel saves the memory before every group; the backward kernel
goes through the groups from last to first, steps again from the saved memory to those between, and
its body is `jax.vjp` of the same step. What a tile does is `engine.tile.tile_step`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from miras.kernels.given import Given, backward_program, forward_program, on_tile, own
from miras.kernels.grid import Grid, Layout, copy, like, read, vmem, write
from miras.kernels.loop import Kernels
from miras.kernels.rewrites import TPU


def _forward(step: Callable[..., Any], layout: Layout, given: Given):
    """(memory, y, loss), and the memories before each group of tiles."""
    program, one = forward_program(step, given), given.of_one_tile()
    sizes = given.streams.q.shape[:3]
    grid = Grid(sizes, layout)
    results = jax.eval_shape(on_tile(step), one.flags, one.constants, one.memory, one.streams)
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
            memory, *y_loss = program(TPU, captured, at, constants, read(held, one.memory), streams)
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
            memory, _, _ = again(TPU, for_again, *start(i))
            write(between, memory, i + 1)

        def backwards(i):
            ends = (read(held, one.memory), *read(inputs["d_read"], own(d_read, 3), i))
            d_constants, d_memory, d_streams = back(TPU, for_back, *start(i), ends)
            write(held, d_memory)
            write(outputs["streams"], d_streams, i)
            write(total, jax.tree.map(jnp.add, read(total, one.constants), d_constants))

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


KERNELS = Kernels(lambda *args: _forward(*args)[0], _forward, _backward)
