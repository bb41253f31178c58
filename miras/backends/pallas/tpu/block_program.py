"""Block programs: the step of one tile of one head, on the blocks that store its values."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from miras.backends.pallas.tpu.blocks import block_shapes, block_values, to_stored, value_blocks
from miras.backends.pallas.tpu.register_lowerings import evaluate_on_tpu
from miras.backends.pallas.tpu.summed_products import with_summed_products
from miras.backends.pallas.trace.live_step import LiveStep
from miras.backends.pallas.trace.operands import ScanOperands
from miras.backends.pallas.trace.program import Program, shapes_of, trace


class BlockProgram(NamedTuple):
    """A program on blocks: (captured, flags, constants, memory, streams, ...) -> results.

    Attributes:
        program: of blocks, in operations that Mosaic has.
        captured: arrays that the step had captured, its first argument.
        blocks: shapes of the blocks of flags, constants, memory and streams.
        read: shapes of y and the loss.
    """

    program: Program
    captured: list[Any]
    blocks: ScanOperands
    read: tuple[Any, Any]


MakeBlockProgram = Callable[[LiveStep, ScanOperands], BlockProgram]


def forward(step: LiveStep, operands: ScanOperands) -> BlockProgram:
    """(captured, flags, constants, memory, streams) -> (memory, (y, loss))."""
    blocks, read = _blocks(operands), _read(step, operands)
    results = blocks.memory, *block_shapes(read)
    return _on_blocks(step.forward(operands), operands, blocks, read, (), (), results)


def forward_pair(step: LiveStep, operands: ScanOperands) -> BlockProgram:
    """(captured, ..., streams of a second chunk) -> (memory, (y, loss), (y, loss))."""
    blocks, read = _blocks(operands), _read(step, operands)
    each = block_shapes(read)
    more = (operands.tile_shapes().streams,), (blocks.streams,)
    program = step.forward_pair(operands)
    return _on_blocks(program, operands, blocks, read, *more, (blocks.memory, each, each))


def backward(step: LiveStep, operands: ScanOperands) -> BlockProgram:
    """(captured, ..., cotangents of memory, y and loss) -> those of constants, memory, streams."""
    blocks, read = _blocks(operands), _read(step, operands)
    cotangents = operands.tile_shapes().memory, *read
    more = (cotangents,), ((blocks.memory, *block_shapes(read)),)
    return _on_blocks(step.backward(operands), operands, blocks, read, *more, blocks[:3])


def _blocks(operands: ScanOperands) -> ScanOperands:
    """The blocks of one tile of one head."""
    one = operands.tile_shapes()
    constants, memory = (block_shapes(to_stored(tree, 0)) for tree in one[:2])
    return ScanOperands(constants, memory, block_shapes(one.streams), one.flags)


def _read(step: LiveStep, operands: ScanOperands) -> tuple[Any, Any]:
    one = operands.tile_shapes()
    _, *read = jax.eval_shape(step, one.flags, one.constants, one.memory, one.streams)
    return tuple(read)


def _on_blocks(
    program: Program,
    operands: ScanOperands,
    blocks: ScanOperands,
    read: tuple[Any, Any],
    more_shapes: tuple[Any, ...],
    more_blocks: tuple[Any, ...],
    results: Any,
) -> BlockProgram:
    one = operands.tile_shapes()
    program = with_summed_products(program)
    captured = shapes_of(program.constants)
    shapes = captured, one.flags, one.constants, one.memory, one.streams, *more_shapes
    stored = block_shapes(captured), blocks.flags, *blocks[:3], *more_blocks

    def on_blocks(*args):
        return value_blocks(program(evaluate_on_tpu, *block_values(args, shapes)), results)

    return BlockProgram(trace(on_blocks, *stored), program.constants, blocks, read)
