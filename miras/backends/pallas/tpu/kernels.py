"""TPU kernels: the tile step traced into Pallas, forward and backward.

The grid is (rows x heads, groups of tiles): heads in parallel, a few of them interleaved in a grid
step, a head's groups in order, its memory in VMEM between them. The forward kernel saves the memory
before every group; the backward kernel goes through the groups from last to first and recomputes
the memories between from the saved one. Its body is `jax.vjp` of the same step. What a tile does is
`engine.tile.tile_step`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from miras.backends.pallas.loop import Kernels
from miras.backends.pallas.tpu import block_program
from miras.backends.pallas.tpu.blocks import (
    add,
    clear,
    copy,
    from_stored,
    read,
    to_stored,
    vmem,
    write,
)
from miras.backends.pallas.tpu.grid import TpuGrid, TpuLayout
from miras.backends.pallas.trace.live_step import LiveStep, over_rows_and_heads
from miras.backends.pallas.trace.operands import ScanOperands
from miras.backends.pallas.trace.program import shapes_of, stacked_shapes


def _forward(step: LiveStep, layout: TpuLayout, operands: ScanOperands, *, save: bool):
    """(memory, memory before the last tile, y, loss), and the memories before each group."""
    sizes = operands.sizes()
    in_pairs = layout.paired > 0 and not save and sizes[0] % 2 == 0
    if in_pairs:
        layout = layout._replace(group=2, heads=layout.paired)
    make = block_program.forward_pair if in_pairs else block_program.forward
    grid, tile = TpuGrid(sizes, layout), make(step, operands)
    memory, y_loss = to_stored(operands.memory, 2), stacked_shapes(tile.read, *sizes)
    inputs = {
        "captured": grid.whole(tile.captured),
        "constants": grid.by_head(to_stored(operands.constants, 1)),
        "memory": grid.by_row(memory),
        "streams": grid.by_tile(operands.streams),
    }
    outputs = {
        "memory": grid.by_row(shapes_of(memory)),
        "before": grid.by_row(shapes_of(memory)),
        "y_loss": grid.by_tile(y_loss),
    }
    if save:
        outputs["saved"] = grid.by_group(stacked_shapes(shapes_of(memory), grid.groups))
    scratch = {"memory": vmem(tile.blocks.memory, grid.interleaved)}

    def kernel(flags, inputs, outputs, scratch):
        state, captured = scratch["memory"], read(inputs["captured"])

        @pl.when(grid.at_start())
        def _():
            copy(inputs["memory"], state)

        if save and grid.group > 1:
            copy(state, outputs["saved"])

        def tiles(i, *more):
            @pl.when(grid.at_end() if in_pairs else grid.is_last(i))
            def _():
                copy(state, outputs["before"])

            at, heads = grid.flags(flags, operands.flags, i), range(grid.interleaved)
            before = [read(state, h) for h in heads]
            constants = [read(inputs["constants"], h) for h in heads]
            streams = [[read(inputs["streams"], n, h) for n in (i, *more)] for h in heads]
            each = [(captured, at, *both, *own) for *both, own in zip(constants, before, streams)]
            with jax.named_scope("forward"):
                found = tile.program.interleaved(each, in_step=layout.large)
            for h, (memory, *y_loss) in enumerate(found):
                if save and grid.group == 1:  # here the step has room for stores, and none before
                    write(outputs["saved"], before[h], h)
                write(state, memory, h)
                for n, of_tile in zip((i, *more), y_loss if in_pairs else [tuple(y_loss)]):
                    write(outputs["y_loss"], of_tile, n, h)

        if in_pairs:
            tiles(0, 1)
        else:
            grid.forwards(tiles)

        @pl.when(grid.at_end())
        def _():
            copy(state, outputs["memory"])

    out = grid.call(kernel, "miras_forward", operands.flags, inputs, outputs, scratch)
    end, before = (
        from_stored(out["memory"], operands.memory),
        from_stored(out["before"], operands.memory),
    )
    if in_pairs:
        streams, flags = jax.tree.map(lambda x: x[-2], (operands.streams, operands.flags))
        before: Any = over_rows_and_heads(step)(flags, operands.constants, before, streams)[0]
    return (end, before, *from_stored(out["y_loss"], y_loss)), out.get("saved")


def _backward(step: LiveStep, layout: TpuLayout, operands: ScanOperands, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    operands = operands._replace(memory=d_memory)  # of the same shapes
    constants, _, streams, _ = operands
    grid = TpuGrid(operands.sizes(), layout, reverse=True)
    recompute, back = block_program.forward(step, operands), block_program.backward(step, operands)
    by_row = stacked_shapes(shapes_of(constants), grid.rows)
    inputs = {
        "recompute": grid.whole(recompute.captured),
        "back": grid.whole(back.captured),
        "constants": grid.by_head(to_stored(constants, 1)),
        "streams": grid.by_tile(streams),
        "saved": grid.by_group(saved),
        "d_memory": grid.by_row(to_stored(d_memory, 2)),
        "d_before": grid.by_row(to_stored(d_before, 2)),
        "d_read": grid.by_tile(tuple(d_read)),
    }
    outputs = {
        "constants": grid.by_row(to_stored(by_row, 2)),
        "memory": grid.by_row(to_stored(shapes_of(d_memory), 2)),
        "streams": grid.by_tile(shapes_of(streams)),
    }
    scratch = {
        "between": vmem(back.blocks.memory, grid.group, grid.interleaved),
        "memory": vmem(back.blocks.memory, grid.interleaved),
        "constants": vmem(back.blocks.constants, grid.interleaved),
    }

    def kernel(flags, inputs, outputs, scratch):
        between, state, total = scratch["between"], scratch["memory"], scratch["constants"]
        for_recompute, for_back = read(inputs["recompute"]), read(inputs["back"])
        heads = range(grid.interleaved)

        def start(i, h):
            at, constants = grid.flags(flags, operands.flags, i), read(inputs["constants"], h)
            return at, constants, read(between, i, h), read(inputs["streams"], i, h)

        def end(i, h):
            return read(state, h), *read(inputs["d_read"], i, h)

        @pl.when(grid.at_start())
        def _():
            copy(inputs["d_memory"], state)
            clear(total)

        copy(inputs["saved"], between, 0)

        def forwards(i):
            each = [(for_recompute, *start(i, h)) for h in heads]
            with jax.named_scope("recompute"):
                found = recompute.program.interleaved(each, in_step=layout.large)
            for h, (memory, *_) in enumerate(found):
                write(between, memory, i + 1, h)

        def backwards(i):
            each = [(for_back, *start(i, h), end(i, h)) for h in heads]
            with jax.named_scope("backward"):
                found = back.program.interleaved(each, in_step=layout.large)
            for h, (d_constants, d_memory, d_streams) in enumerate(found):
                write(state, d_memory, h)
                write(outputs["streams"], d_streams, i, h)
                add(total, d_constants, h)

            @pl.when(grid.is_last(i))
            def _():
                for h in heads:
                    add(state, read(inputs["d_before"], h), h)

        grid.forwards(forwards, but_last=True)
        grid.backwards(backwards)

        @pl.when(grid.at_end())
        def _():
            copy(state, outputs["memory"])
            copy(total, outputs["constants"])

    out = grid.call(kernel, "miras_backward", operands.flags, inputs, outputs, scratch)
    d_constants = jax.tree.map(lambda x: jnp.sum(x, axis=0), from_stored(out["constants"], by_row))
    return d_constants, from_stored(out["memory"], d_memory), from_stored(out["streams"], streams)


KERNELS = Kernels(_forward, _backward)
