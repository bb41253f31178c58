"""GPU plan: how a rule's tokens are laid out for a GPU kernel, or why there can be none."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from miras.backends.pallas.gpu.columns import in_columns, independent
from miras.backends.pallas.gpu.kernels import Layout
from miras.backends.pallas.gpu.padded import LEAST, padded
from miras.backends.pallas.gpu.staged import Staged
from miras.backends.pallas.gpu.stages import in_blocks, staged
from miras.backends.pallas.gpu.triton import LOWERED, TRITON
from miras.backends.pallas.trace.hidden_units import Units
from miras.backends.pallas.trace.live_state import carried_by
from miras.backends.pallas.trace.operands import Given
from miras.backends.pallas.trace.program import Program, equations
from miras.backends.pallas.trace.support import unsupported
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule

WARPS = 8  # 256 threads, of 255 registers each: all that a multiprocessor has
BLOCK = 16  # hidden units at once: with more, kernels of most rules spill
LEAST_HELD = 2048  # bytes: small values are held by several warps at once
MOVES = {"slice", "pad", "concatenate", "split", "gather", "dynamic_slice", "scatter-add"}
MOST_MOVES = 16  # in a loop: each has addresses of its own, which are held from tile to tile


class Room(NamedTuple):
    """Bytes of values that may be alive at once.

    As much again, and more, is taken by operands laid out for tensor cores, and by addresses, which
    a loop over tiles holds on to. Found with `benchmarks/gpu_static.py`: with these no kernel
    spills more than 256 bytes a thread.

    Attributes:
        one: in kernels of one tile.
        all: in kernels of all tiles.
        blocks: in kernels of one tile, in blocks of hidden units.
    """

    one: int
    all: int
    blocks: int

    @classmethod
    def at(cls, width: int) -> "Room":
        """For heads of this width."""
        if width <= LEAST:  # most of their products are held by every warp
            return cls(80 * 2**10, 78 * 2**10, 140 * 2**10)
        if width <= 64:
            return cls(135 * 2**10, 118 * 2**10, 130 * 2**10)
        return cls(135 * 2**10, 96 * 2**10, 153 * 2**10)


class Plan(NamedTuple):
    """How tokens are laid out.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk.
        columns: heads that each head is computed as, of 16 columns each; see `columns`.
        layout: how the kernels go through the tiles.
    """

    tile: int
    columns: int
    layout: Layout


def plan(
    rule: Rule, options: ScanOptions, operands: Callable[[int], Any], width: int
) -> Plan | str:
    """The plan for a call, or a sentence that says why no kernel can take it.

    Args:
        rule: the four parts.
        options: of the call.
        operands: from the tokens of a tile to the shapes of what the loop is called with.
        width: of values.
    """
    tile = tile_of(options.chunk)
    columns = width // LEAST if independent(rule) and width % LEAST == 0 else 1
    step, given = carried_by(rule, options, operands(tile), lambda loop: in_columns(loop, columns))
    programs = step.forward(given), step.backward(given)
    for program in programs:
        reason = unsupported(rule, program, TRITON)
        if reason is not None:
            return reason
    room, found = Room.at(width), [staged(program) for program in programs]
    whole = max(map(alive, found))
    if whole > room.one:
        blocks = _in_blocks(given, programs, room)
        if isinstance(blocks, str):
            return (
                f"a tile of {tile} tokens of this rule holds {whole / 2**10:.0f} KiB at once on a "
                f"GPU, where {room.one / 2**10:.0f} KiB fit into registers, and {blocks}"
            )
        found = blocks
    looped = whole <= room.all and max(map(_moves, programs)) <= MOST_MOVES
    return Plan(tile, columns, Layout(WARPS, looped, found[0].units))


def _in_blocks(given: Given, programs: tuple[Program, ...], room: Room) -> list[Staged] | str:
    """The programs in blocks of hidden units, or why there are none."""
    matrices = [x.shape for x in given.of_one_tile().memory if len(x.shape) > 1]
    common = set.intersection(*map(set, matrices)) if matrices else set()
    count = max(common, default=0)
    if not all(shape.count(count) == 1 for shape in matrices) or count % BLOCK or count <= BLOCK:
        return f"there are no blocks of {BLOCK} hidden units to take it apart"
    found = []
    for program in programs:
        one = in_blocks(program, Units(count, BLOCK), LOWERED)
        if isinstance(one, str):
            return one
        found.append(one)
    needed = max(map(alive, found))
    if needed > room.blocks:
        return f"{needed / 2**10:.0f} KiB in blocks of {BLOCK} of its {count} hidden units"
    return found


def tile_of(chunk: int) -> int:
    """Tokens of a tile of a chunk."""
    return math.gcd(chunk, LEAST)


def alive(program: Staged) -> int:
    """Bytes of all values that a tile's equations hold at once, at most."""
    return program.peak(_held)


def _held(aval: Any) -> int:
    if not aval.shape:
        return 0
    numbers = math.prod(padded(aval.shape))
    return max(4 * numbers, LEAST_HELD)  # a bfloat16, too, takes a register


def _moves(program: Program) -> int:
    return sum(eqn.primitive.name in MOVES for eqn in equations(program.jaxpr))
