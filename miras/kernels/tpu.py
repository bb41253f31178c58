"""TPU kernels: the tile step traced into Pallas, forward and backward.

The grid is (rows x heads, groups of tiles): heads in parallel, a head's groups in order, its memory
in VMEM between them. The forward kernel saves the memory before every group; the backward kernel
goes through the groups from last to first, steps again from the saved memory to those between, and
its body is `jax.vjp` of the same step. What a tile does is `engine.tile.tile_step`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from miras.kernels import refs
from miras.kernels.carried import Carried
from miras.kernels.given import Given, own
from miras.kernels.grid import Grid, Layout
from miras.kernels.loop import Kernels
from miras.kernels.operations import run
from miras.kernels.program import Program, trace
from miras.kernels.refs import (
    add,
    as_block,
    clear,
    copy,
    like,
    lying,
    read,
    values,
    vmem,
    write,
)


def _in_blocks(program: Program, shapes: Any, *blocks: Any) -> Program:
    """A program of values of these shapes as one of the blocks in which they lie.

    Args:
        program: of values; traced here with its operations as a TPU's kernel has them.
        shapes: of its arguments, and of its results.
        *blocks: of its arguments, and of its results.
    """
    *given, results = blocks
    of_values = shapes

    def in_blocks(captured, *args):
        out = program(run, captured, *values(args, of_values))
        return refs.blocks(out, results)

    return trace(in_blocks, own(program.constants, 0), *given)


def _forward(step: Carried, layout: Layout, given: Given):
    """(memory, memory before the last tile, y, loss), and the memories before each group."""
    program, one = step.forward(given), given.of_one_tile()
    sizes = given.streams.q.shape[:3]
    grid = Grid(sizes, layout)
    read_shapes = jax.eval_shape(step, one.flags, *one[:3])[1:]
    y_loss = _every(read_shapes, *sizes)
    constants, memory = lying(given.constants, 1), lying(given.memory, 2)
    blocks = Given(own(constants, 1), own(memory, 2), as_block(one.streams), one.flags)
    shapes = one.flags, one.constants, one.memory, one.streams
    in_blocks = _in_blocks(
        program,
        shapes,
        blocks.flags,
        as_block(blocks.constants),
        as_block(blocks.memory),
        blocks.streams,
        (as_block(blocks.memory), *as_block(read_shapes)),
    )
    inputs = {
        "captured": grid.whole(program.constants),
        "constants": grid.by_head(constants),
        "memory": grid.by_row(memory),
        "streams": grid.by_tile(given.streams),
    }
    outputs = {
        "memory": grid.by_row(own(memory, 0)),
        "before": grid.by_row(own(memory, 0)),
        "y_loss": grid.by_tile(y_loss),
        "saved": grid.by_group(_every(own(memory, 0), grid.groups)),
    }

    def kernel(flags, inputs, outputs, scratch):
        held = scratch["memory"]
        captured = [x[...].reshape(c.shape) for x, c in zip(inputs["captured"], program.constants)]

        @pl.when(grid.at_start())
        def _():
            copy(inputs["memory"], held)

        copy(held, outputs["saved"])

        def tile(i):
            @pl.when(grid.is_last(i))
            def _():
                copy(held, outputs["before"])

            at = grid.flags(flags, given.flags, i)
            args = [
                (
                    captured,
                    at,
                    read(inputs["constants"], h),
                    read(held, h),
                    read(inputs["streams"], i, h),
                )
                for h in grid.beside
            ]
            for h, (memory, *y_loss) in enumerate(in_blocks.side_by_side([], *args)):
                write(held, memory, h)
                write(outputs["y_loss"], tuple(y_loss), i, h)

        grid.forwards(tile)

        @pl.when(grid.at_end())
        def _():
            copy(held, outputs["memory"])

    scratch = {"memory": vmem(own(memory, 2), len(grid.beside))}
    out = grid.call(kernel, "miras_forward", given.flags, inputs, outputs, scratch)
    ends = like(out["memory"], given.memory), like(out["before"], given.memory)
    return (*ends, *like(out["y_loss"], y_loss)), out["saved"]


def _backward(step: Carried, layout: Layout, given: Given, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    given = given._replace(memory=d_memory)
    constants, _, streams, flags = given
    again, back = step.forward(given), step.backward(given)
    one = given.of_one_tile()
    grid = Grid(streams.q.shape[:3], layout, reverse=True)
    lying_constants, lying_memory = lying(own(constants, 0), 1), lying(own(d_memory, 0), 2)
    b_c, b_m = as_block(own(lying_constants, 1)), as_block(own(lying_memory, 2))
    b_s, b_r = as_block(one.streams), tuple(as_block(own(d_read, 3)))
    shapes = one.flags, one.constants, one.memory, one.streams
    again_in = _in_blocks(again, shapes, one.flags, b_c, b_m, b_s, (b_m, *b_r))
    ends = (one.memory, *own(d_read, 3))
    back_in = _in_blocks(
        back, (*shapes, ends), one.flags, b_c, b_m, b_s, (b_m, *b_r), (b_c, b_m, b_s)
    )
    inputs = {
        "again": grid.whole(again.constants),
        "back": grid.whole(back.constants),
        "constants": grid.by_head(lying(constants, 1)),
        "streams": grid.by_tile(streams),
        "saved": grid.by_group(saved),
        "d_memory": grid.by_row(lying(d_memory, 2)),
        "d_before": grid.by_row(lying(d_before, 2)),
        "d_read": grid.by_tile(tuple(d_read)),
    }
    outputs = {
        "constants": grid.by_row(_every(lying_constants, grid.rows)),
        "memory": grid.by_row(lying_memory),
        "streams": grid.by_tile(own(streams, 0)),
    }

    def kernel(flags, inputs, outputs, scratch):
        between, held, total = scratch["between"], scratch["memory"], scratch["constants"]
        for_again = [x[...].reshape(c.shape) for x, c in zip(inputs["again"], again.constants)]
        for_back = [x[...].reshape(c.shape) for x, c in zip(inputs["back"], back.constants)]

        def start(i, h):
            constants = read(inputs["constants"], h)
            at = grid.flags(flags, given.flags, i)
            return at, constants, read(between, i, h), read(inputs["streams"], i, h)

        @pl.when(grid.at_start())
        def _():
            copy(inputs["d_memory"], held)
            clear(total)

        copy(inputs["saved"], between, 0)

        def forwards(i):
            args = [(for_again, *start(i, h)) for h in grid.beside]
            for h, (memory, *_) in enumerate(again_in.side_by_side([], *args)):
                write(between, memory, i + 1, h)

        def backwards(i):
            args = [
                (for_back, *start(i, h), (read(held, h), *read(inputs["d_read"], i, h)))
                for h in grid.beside
            ]
            for h, (d_constants, d_memory, d_streams) in enumerate(back_in.side_by_side([], *args)):
                write(held, d_memory, h)
                write(outputs["streams"], d_streams, i, h)
                add(total, d_constants, h)

            @pl.when(grid.is_last(i))
            def _():
                for h in grid.beside:
                    add(held, read(inputs["d_before"], h), h)

        grid.forwards(forwards, but_last=True)
        grid.backwards(backwards)

        @pl.when(grid.at_end())
        def _():
            copy(held, outputs["memory"])
            copy(total, outputs["constants"])

    beside = len(grid.beside)
    scratch = {
        "between": vmem(own(lying_memory, 2), grid.group, beside),
        "memory": vmem(own(lying_memory, 2), beside),
        "constants": vmem(own(lying_constants, 1), beside),
    }
    out = grid.call(kernel, "miras_backward", flags, inputs, outputs, scratch)
    by_row = _every(own(constants, 0), grid.rows)
    d_constants = jax.tree.map(lambda x: jnp.sum(x, axis=0), like(out["constants"], by_row))
    return d_constants, like(out["memory"], d_memory), like(out["streams"], streams)


def _every(shapes: Any, *lead: int) -> Any:
    """Shapes behind further dimensions."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype), shapes)


KERNELS = Kernels(_forward, _backward)
