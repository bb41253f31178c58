"""Laid: the programs of one tile of one head, on the blocks in which its values lie."""

from typing import Any, NamedTuple

import jax

from miras.backends.pallas.tpu import refs
from miras.backends.pallas.tpu.operations import run
from miras.backends.pallas.trace.live_state import Carried
from miras.backends.pallas.trace.operands import Given, own
from miras.backends.pallas.trace.program import Program, trace


class Laid(NamedTuple):
    """A program on blocks: (captured, flags, constants, memory, streams, ...) -> results.

    Attributes:
        program: of blocks, with operations as a TPU's kernel has them.
        captured: arrays that the step had captured, its first argument.
        blocks: shapes of the blocks of flags, constants, memory and streams.
        read: shapes of y and the loss.
    """

    program: Program
    captured: list[Any]
    blocks: Given
    read: tuple[Any, Any]


def forward(step: Carried, given: Given) -> Laid:
    """(captured, flags, constants, memory, streams) -> (memory, (y, loss))."""
    blocks, read = _blocks(given), _read(step, given)
    results = blocks.memory, *refs.as_block(read)
    return _laid(step.forward(given), given, blocks, read, (), (), results)


def forward_pair(step: Carried, given: Given) -> Laid:
    """(captured, ..., streams of a second chunk) -> (memory, (y, loss), (y, loss))."""
    blocks, read = _blocks(given), _read(step, given)
    each = refs.as_block(read)
    more = (given.of_one_tile().streams,), (blocks.streams,)
    program = step.forward_pair(given)
    return _laid(program, given, blocks, read, *more, (blocks.memory, each, each))


def backward(step: Carried, given: Given) -> Laid:
    """(captured, ..., cotangents of memory, y and loss) -> those of constants, memory, streams."""
    blocks, read = _blocks(given), _read(step, given)
    ends = given.of_one_tile().memory, *read
    laid_ends = blocks.memory, *refs.as_block(read)
    return _laid(step.backward(given), given, blocks, read, (ends,), (laid_ends,), blocks[:3])


def _blocks(given: Given) -> Given:
    """The blocks of one tile of one head."""
    one = given.of_one_tile()
    constants, memory = (refs.as_block(refs.lying(tree, 0)) for tree in one[:2])
    return Given(constants, memory, refs.as_block(one.streams), one.flags)


def _read(step: Carried, given: Given) -> tuple[Any, Any]:
    one = given.of_one_tile()
    _, *read = jax.eval_shape(step, one.flags, one.constants, one.memory, one.streams)
    return tuple(read)


def _laid(program, given, blocks, read, more_shapes, more_blocks, results) -> Laid:
    one = given.of_one_tile()
    captured = own(program.constants, 0)
    shapes = captured, one.flags, one.constants, one.memory, one.streams, *more_shapes
    laid = refs.as_block(captured), blocks.flags, *blocks[:3], *more_blocks

    def in_blocks(*args):
        return refs.blocks(program(run, *refs.values(args, shapes)), results)

    return Laid(trace(in_blocks, *laid), program.constants, blocks, read)
