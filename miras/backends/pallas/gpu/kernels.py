"""GPU kernels: the tile step traced writer Pallas's Triton, forward and backward.

A program of the grid is a head of a row. It goes through its tiles in order. The memory between two
of them stays in the L2 cache, and what a tile computes in registers, in blocks of the hidden
dimension where it would not fit (`phased_program`). The forward kernel saves the memory before
every tile; the backward kernel goes from the last tile to the first, and its body is `jax.vjp` of
the same step. What a tile does is `engine.tile.tile_step`.

Where a loop over tiles would keep too many registers, a kernel runs for each tile, in a `lax.scan`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from miras.array_typing import Array
from miras.backends.pallas.gpu.grid import GpuGrid, flags_at, readers, synchronise, writer
from miras.backends.pallas.gpu.loop_fission import in_blocks, in_one_phase
from miras.backends.pallas.gpu.lowerings import evaluate_on_gpu
from miras.backends.pallas.gpu.phased_program import PhasedProgram
from miras.backends.pallas.loop import Kernels
from miras.backends.pallas.trace.hidden_blocks import HiddenBlocks, merge, split
from miras.backends.pallas.trace.live_step import LiveStep
from miras.backends.pallas.trace.operands import ScanOperands
from miras.backends.pallas.trace.program import Program, shapes_of, stacked_shapes


class GpuLayout(NamedTuple):
    """How GPU kernels go through tiles.

    Attributes:
        warps: of 32 threads, that work on a head.
        looped: whether one call goes through all tiles; else there is a call for each.
        blocks: of the memory's hidden dimension; None where whole weights fit.
    """

    warps: int
    looped: bool
    blocks: HiddenBlocks | None = None


def _forward(step: LiveStep, layout: GpuLayout, operands: ScanOperands, *, save: bool):
    """(memory, memory before the last tile, y, loss), and the memories before each tile."""
    program, blocks = _program(step.forward(operands), layout), layout.blocks
    memories, *read = program.results
    operands = _split(operands, blocks)
    run = functools.partial(_run_forward, program, layout.warps)
    if layout.looped:
        saved, y_loss = run(operands, save=save)
        tiles = operands.sizes()[0]
        after, before = ([x[n % x.shape[0]] for x in saved] for n in (tiles, tiles - 1))
    else:

        def tile(memories: tuple[list[Array], list[Array]], some: Any):
            _, before = memories
            part = operands._replace(memory=before, streams=some[0], flags=some[1])
            between, y_loss = run(part)
            return (before, [x[1] for x in between]), (y_loss, before if save else None)

        start = operands.memory, operands.memory
        (before, after), (y_loss, saved) = lax.scan(tile, start, _one_by_one(operands))
        y_loss = jax.tree.map(lambda x: x[:, 0], y_loss)
    after, before = (merge(x, blocks, memories, 2) for x in (after, before))
    return (after, before, *merge(y_loss, blocks, read, 3)), saved


def _backward(
    step: LiveStep, layout: GpuLayout, operands: ScanOperands, saved: list[Array], cotangents: Any
):
    """The cotangents of constants, memory and streams."""
    d_memory, d_before, *d_read = cotangents
    operands, blocks = operands._replace(memory=d_memory), layout.blocks  # of its shapes
    program = _program(step.backward(operands), layout)
    operands, d_before, d_read = (
        _split(operands, blocks),
        split(d_before, blocks, 2),
        split(d_read, blocks, 3),
    )
    run = functools.partial(_run_backward, program, layout.warps)
    if layout.looped:
        found = run(operands, saved, operands.memory, d_before, d_read)
    else:

        def tile(carry: Any, some: Any):
            d_constants, d_memory, d_before = carry
            one, memory, d_read = some
            part = operands._replace(streams=one[0], flags=one[1])
            of_tile, d_memory, d_streams = run(part, memory, d_memory, d_before, d_read)
            d_constants = [x + d for x, d in zip(d_constants, of_tile)]
            return (d_constants, d_memory, [jnp.zeros_like(x) for x in d_before]), d_streams

        start = [jnp.zeros_like(x) for x in operands.constants], operands.memory, d_before
        alone = jax.tree.map(lambda x: x[:, None], (saved, d_read))
        (d_constants, d_memory, _), d_streams = lax.scan(
            tile, start, (_one_by_one(operands), *alone), reverse=True
        )
        found = d_constants, d_memory, jax.tree.map(lambda x: x[:, 0], d_streams)
    leads = enumerate(zip(found, program.results), start=1)
    return tuple(merge(x, blocks, shapes, lead) for lead, (x, shapes) in leads)


def _program(program: Program, layout: GpuLayout) -> PhasedProgram:
    if layout.blocks is None:
        return in_one_phase(program, looped=layout.looped)
    found = in_blocks(program, layout.blocks)
    assert isinstance(found, PhasedProgram), found  # `plan` chose blocks that work
    return found


def _split(operands: ScanOperands, blocks: HiddenBlocks | None) -> ScanOperands:
    """With the hidden dimension in blocks."""
    constants, memory, streams = (split(x, blocks, n) for n, x in enumerate(operands[:3], start=1))
    return ScanOperands(constants, memory, streams, operands.flags)


def _one_by_one(operands: ScanOperands) -> Any:
    return jax.tree.map(lambda x: x[:, None], (operands.streams, operands.flags))


def _run_forward(program: PhasedProgram, warps: int, operands: ScanOperands, *, save: bool = False):
    """Memories between tiles, the n-th at n, or with save=False at n modulo 2; and (y, loss)."""
    one, sizes = operands.tile_shapes(), operands.sizes()
    grid, places = GpuGrid(sizes), sizes[0] + 1 if save else 2
    memories, *y_loss = program.results
    inputs = {
        "captured": grid.whole(program.captured()),
        "flags": grid.flags(operands.flags),
        "constants": grid.by_head(operands.constants),
        "memory": grid.by_row(operands.memory),
        "streams": grid.by_tile(operands.streams),
    }
    outputs = {
        "y_loss": grid.by_tile(stacked_shapes(split(y_loss, program.blocks, 0), *sizes)),
        "between": grid.by_tile(stacked_shapes(one.memory, places, *sizes[1:])),
        "scratch": grid.by_row(stacked_shapes(program.scratch(), *sizes[1:])),
    }

    def kernel(inputs, outputs):
        constants, between = readers(inputs["constants"]), outputs["between"]
        start = readers(inputs["memory"])
        program.for_each_block(memories, lambda n, *at: writer(between[n], 0)(start[n](*at), *at))

        def tile(i, _):
            synchronise()
            memory = readers(between, lax.rem(i, places))
            streams, flags = readers(inputs["streams"], i), flags_at(inputs["flags"], i)
            writes = (
                [writer(ref, lax.rem(i + 1, places)) for ref in between],
                *(writer(ref, i) for ref in outputs["y_loss"]),
            )
            reads = readers(inputs["captured"]), flags, constants, memory, streams
            with jax.named_scope("forward"):
                program(evaluate_on_gpu, reads, writes, outputs["scratch"], synchronise)
            return 0

        lax.fori_loop(0, grid.tiles, tile, 0)

    out = grid.call(kernel, "miras_forward", warps, inputs, outputs)
    return tuple(_unpadded(out[key], outputs[key].shapes) for key in ("between", "y_loss"))


def _run_backward(
    program: PhasedProgram, warps: int, operands: ScanOperands, saved, d_memory, d_before, d_read
):
    """The cotangents of constants, memory and streams."""
    sizes, streams, (constants, memories, _) = operands.sizes(), operands.streams, program.results
    grid, one = GpuGrid(sizes), operands.tile_shapes()
    inputs = {
        "captured": grid.whole(program.captured()),
        "flags": grid.flags(operands.flags),
        "constants": grid.by_head(operands.constants),
        "streams": grid.by_tile(streams),
        "saved": grid.by_tile(saved),
        "d_memory": grid.by_row(d_memory),
        "d_before": grid.by_row(d_before),
        "d_read": grid.by_tile(d_read),
    }
    outputs = {
        "constants": grid.by_row(stacked_shapes(one.constants, *sizes[1:])),
        "streams": grid.by_tile(shapes_of(streams)),
        "between": grid.by_tile(stacked_shapes(one.memory, 2, *sizes[1:])),
        "scratch": grid.by_row(stacked_shapes(program.scratch(), *sizes[1:])),
    }

    def kernel(inputs, outputs):
        between, total = outputs["between"], outputs["constants"]
        end, before = readers(inputs["d_memory"]), readers(inputs["d_before"])
        so_far = readers(total)
        program.for_each_block(memories, lambda n, *at: writer(between[n], 0)(end[n](*at), *at))
        program.for_each_block(
            constants, lambda n, *at: writer(total[n])(jnp.zeros_like(so_far[n](*at)), *at)
        )

        def tile(n, _):
            synchronise()
            i = grid.tiles - 1 - n

            def of_memory(ref: Any, before: Callable[..., Array]):
                write = writer(ref, lax.rem(n + 1, 2))
                return lambda x, *at: write(x + jnp.where(n == 0, before(*at), 0), *at)

            def of_constant(ref: Any, so_far: Callable[..., Array]):
                return lambda x, *at: writer(ref)(so_far(*at) + x, *at)

            writes = (
                [of_constant(*both) for both in zip(total, so_far)],
                [of_memory(*both) for both in zip(between, before)],
                jax.tree.map(lambda ref: writer(ref, i), outputs["streams"]),
            )
            reads = (
                (readers(inputs["captured"]), flags_at(inputs["flags"], i)),
                readers(inputs["constants"]),
                (readers(inputs["saved"], i), readers(inputs["streams"], i)),
                (readers(between, lax.rem(n, 2)), readers(inputs["d_read"], i)),
            )
            with jax.named_scope("backward"):
                program(evaluate_on_gpu, reads, writes, outputs["scratch"], synchronise)
            return 0

        lax.fori_loop(0, grid.tiles, tile, 0)

    out = grid.call(kernel, "miras_backward", warps, inputs, outputs)
    cut = {key: _unpadded(out[key], found.shapes) for key, found in outputs.items()}
    d_constants = [jnp.sum(x, axis=0) for x in cut["constants"]]
    return d_constants, [x[sizes[0] % 2] for x in cut["between"]], cut["streams"]


def _unpadded(arrays: Any, shapes: Any) -> Any:
    """Padded arrays in their own shapes."""
    return jax.tree.map(lambda x, s: x[tuple(map(slice, s.shape))], arrays, shapes)


KERNELS = Kernels(_forward, _backward)
