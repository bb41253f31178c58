"""GPU plan: how a rule's tokens are laid out for a GPU kernel, or why there can be none."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from miras.kernels.carried import carried_by
from miras.kernels.columns import in_columns, independent
from miras.kernels.gpu import Layout
from miras.kernels.padded import LEAST, padded
from miras.kernels.program import Program, equations, peak
from miras.kernels.support import unsupported
from miras.kernels.triton import TRITON
from miras.rule import Rule

WARPS = 8  # 256 threads, of 255 registers each: all that a multiprocessor has
LEAST_HELD = 2048  # bytes: small values are held by several warps at once
MOVES = {"slice", "pad", "concatenate", "split", "gather", "dynamic_slice", "scatter-add"}
MOST_MOVES = 16  # in a loop: each has addresses of its own, which are held from tile to tile


class Room(NamedTuple):
    """Bytes of values that may be alive at once, in kernels of one tile and of all tiles.

    As much again, and more, is taken by operands laid out for tensor cores, and by addresses, which
    a loop over tiles holds on to. Found with `benchmarks/gpu_static.py`: with these no kernel
    spills more than 256 bytes a thread.
    """

    one: int
    all: int

    @classmethod
    def at(cls, width: int) -> "Room":
        """For heads of this width."""
        if width <= LEAST:  # most of their products are held by every warp
            return cls(88 * 2**10, 78 * 2**10)
        return cls(135 * 2**10, (118 if width <= 64 else 96) * 2**10)


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


def plan(rule: Rule, run: Callable[..., Any], chunk: int, width: int) -> Plan | str:
    """The plan for a call, or a sentence that says why no kernel can take it.

    Args:
        rule: the four parts.
        run: `xla.run` with all its arguments but `loop` and `tile`.
        chunk: tokens of a chunk.
        width: of values.
    """
    tile = tile_of(chunk)
    columns = width // LEAST if independent(rule) and width % LEAST == 0 else 1
    step, given = carried_by(run, tile, lambda loop: in_columns(loop, columns))
    programs = step.forward(given), step.backward(given)
    for program in programs:
        reason = unsupported(rule, program, TRITON)
        if reason is not None:
            return reason
    needed, room = max(map(alive, programs)), Room.at(width)
    if needed > room.one:
        return (
            f"a tile of {tile} tokens of this rule holds {needed / 2**10:.0f} KiB at once on a "
            f"GPU, where {room.one / 2**10:.0f} KiB fit into registers"
        )
    looped = needed <= room.all and max(map(_moves, programs)) <= MOST_MOVES
    return Plan(tile, columns, Layout(WARPS, looped))


def tile_of(chunk: int) -> int:
    """Tokens of a tile of a chunk."""
    return math.gcd(chunk, LEAST)


def alive(program: Program) -> int:
    """Bytes of all values that a tile's equations hold at once, at most."""
    return peak(program.jaxpr, _held, later=True)


def _held(aval: Any) -> int:
    if not aval.shape:
        return 0
    numbers = math.prod(padded(aval.shape))
    return max(4 * numbers, LEAST_HELD)  # a bfloat16, too, takes a register


def _moves(program: Program) -> int:
    return sum(eqn.primitive.name in MOVES for eqn in equations(program.jaxpr))
