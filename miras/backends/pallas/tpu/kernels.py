"""TPU kernels: the tile step traced into Pallas, forward and backward.

The grid is (rows x heads, groups of tiles): heads in parallel, a few of them side by side in a
step, a head's groups in order, its memory in VMEM between them. The forward kernel saves the memory
before every group; the backward kernel goes through the groups from last to first, steps again from
the saved memory to those between, and its body is `jax.vjp` of the same step. What a tile does is
`engine.tile.tile_step`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from miras.backends.pallas.loop import Kernels
from miras.backends.pallas.tpu import block_program as laid
from miras.backends.pallas.tpu.grid import Grid, Layout
from miras.backends.pallas.tpu.refs import add, clear, copy, like, lying, read, vmem, write
from miras.backends.pallas.trace.live_state import Carried, everywhere
from miras.backends.pallas.trace.operands import Given, own


def _forward(step: Carried, layout: Layout, given: Given, *, save: bool):
    """(memory, memory before the last tile, y, loss), and the memories before each group."""
    sizes = given.sizes()
    in_pairs = layout.paired > 0 and not save and sizes[0] % 2 == 0
    if in_pairs:
        layout = layout._replace(group=2, heads=layout.paired)
    grid, tile = Grid(sizes, layout), (laid.forward_pair if in_pairs else laid.forward)(step, given)
    memory, y_loss = lying(given.memory, 2), _every(tile.read, *sizes)
    inputs = {
        "captured": grid.whole(tile.captured),
        "constants": grid.by_head(lying(given.constants, 1)),
        "memory": grid.by_row(memory),
        "streams": grid.by_tile(given.streams),
    }
    outputs = {
        "memory": grid.by_row(own(memory, 0)),
        "before": grid.by_row(own(memory, 0)),
        "y_loss": grid.by_tile(y_loss),
    }
    if save:
        outputs["saved"] = grid.by_group(_every(own(memory, 0), grid.groups))
    scratch = {"memory": vmem(tile.blocks.memory, grid.beside)}

    def kernel(flags, inputs, outputs, scratch):
        held, captured = scratch["memory"], read(inputs["captured"])

        @pl.when(grid.at_start())
        def _():
            copy(inputs["memory"], held)

        if save and grid.group > 1:
            copy(held, outputs["saved"])

        def tiles(i, *more):
            @pl.when(grid.at_end() if in_pairs else grid.is_last(i))
            def _():
                copy(held, outputs["before"])

            at, heads = grid.flags(flags, given.flags, i), range(grid.beside)
            before = [read(held, h) for h in heads]
            constants = [read(inputs["constants"], h) for h in heads]
            streams = [[read(inputs["streams"], n, h) for n in (i, *more)] for h in heads]
            each = [(captured, at, *both, *own) for *both, own in zip(constants, before, streams)]
            found = tile.program.side_by_side(each, abreast=layout.large)
            for h, (memory, *y_loss) in enumerate(found):
                if save and grid.group == 1:  # here the step has room for stores, and none before
                    write(outputs["saved"], before[h], h)
                write(held, memory, h)
                for n, of_tile in zip((i, *more), y_loss if in_pairs else [tuple(y_loss)]):
                    write(outputs["y_loss"], of_tile, n, h)

        if in_pairs:
            tiles(0, 1)
        else:
            grid.forwards(tiles)

        @pl.when(grid.at_end())
        def _():
            copy(held, outputs["memory"])

    out = grid.call(kernel, "miras_forward", given.flags, inputs, outputs, scratch)
    end, before = like(out["memory"], given.memory), like(out["before"], given.memory)
    if in_pairs:
        streams, flags = jax.tree.map(lambda x: x[-2], (given.streams, given.flags))
        before: Any = everywhere(step)(flags, given.constants, before, streams)[0]
    return (end, before, *like(out["y_loss"], y_loss)), out.get("saved")


def _backward(step: Carried, layout: Layout, given: Given, saved, cotangents):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    given = given._replace(memory=d_memory)  # of the same shapes
    constants, _, streams, _ = given
    grid = Grid(given.sizes(), layout, reverse=True)
    again, back = laid.forward(step, given), laid.backward(step, given)
    by_row = _every(own(constants, 0), grid.rows)
    inputs = {
        "again": grid.whole(again.captured),
        "back": grid.whole(back.captured),
        "constants": grid.by_head(lying(constants, 1)),
        "streams": grid.by_tile(streams),
        "saved": grid.by_group(saved),
        "d_memory": grid.by_row(lying(d_memory, 2)),
        "d_before": grid.by_row(lying(d_before, 2)),
        "d_read": grid.by_tile(tuple(d_read)),
    }
    outputs = {
        "constants": grid.by_row(lying(by_row, 2)),
        "memory": grid.by_row(lying(own(d_memory, 0), 2)),
        "streams": grid.by_tile(own(streams, 0)),
    }
    scratch = {
        "between": vmem(back.blocks.memory, grid.group, grid.beside),
        "memory": vmem(back.blocks.memory, grid.beside),
        "constants": vmem(back.blocks.constants, grid.beside),
    }

    def kernel(flags, inputs, outputs, scratch):
        between, held, total = scratch["between"], scratch["memory"], scratch["constants"]
        for_again, for_back = read(inputs["again"]), read(inputs["back"])
        heads = range(grid.beside)

        def start(i, h):
            at, constants = grid.flags(flags, given.flags, i), read(inputs["constants"], h)
            return at, constants, read(between, i, h), read(inputs["streams"], i, h)

        def end(i, h):
            return read(held, h), *read(inputs["d_read"], i, h)

        @pl.when(grid.at_start())
        def _():
            copy(inputs["d_memory"], held)
            clear(total)

        copy(inputs["saved"], between, 0)

        def forwards(i):
            each = [(for_again, *start(i, h)) for h in heads]
            for h, (memory, *_) in enumerate(
                again.program.side_by_side(each, abreast=layout.large)
            ):
                write(between, memory, i + 1, h)

        def backwards(i):
            each = [(for_back, *start(i, h), end(i, h)) for h in heads]
            found = back.program.side_by_side(each, abreast=layout.large)
            for h, (d_constants, d_memory, d_streams) in enumerate(found):
                write(held, d_memory, h)
                write(outputs["streams"], d_streams, i, h)
                add(total, d_constants, h)

            @pl.when(grid.is_last(i))
            def _():
                for h in heads:
                    add(held, read(inputs["d_before"], h), h)

        grid.forwards(forwards, but_last=True)
        grid.backwards(backwards)

        @pl.when(grid.at_end())
        def _():
            copy(held, outputs["memory"])
            copy(total, outputs["constants"])

    out = grid.call(kernel, "miras_backward", given.flags, inputs, outputs, scratch)
    d_constants = jax.tree.map(lambda x: jnp.sum(x, axis=0), like(out["constants"], by_row))
    return d_constants, like(out["memory"], d_memory), like(out["streams"], streams)


def _every(shapes: Any, *lead: int) -> Any:
    """Shapes behind further dimensions."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype), shapes)


KERNELS = Kernels(_forward, _backward)
