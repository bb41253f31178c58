"""GPU plan: how a rule's tokens are laid out for a GPU kernel, or why there can be none."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from miras.kernels.carried import carried_by
from miras.kernels.columns import in_columns, independent
from miras.kernels.gpu import Layout
from miras.kernels.padded import LEAST, padded
from miras.kernels.program import Program, peak
from miras.kernels.support import unsupported
from miras.kernels.triton import TRITON
from miras.rule import Rule

WARPS = 8  # 256 threads, of 255 registers each: all that a multiprocessor has
LEAST_HELD = 2048  # bytes: small values are held by several warps at once
# Bytes of values that are alive at once in a kernel of one tile, at most. Operands of tensor cores,
# laid out for them, and addresses take more than as much again: above this the compiler spills
# more than 256 bytes a thread (`benchmarks/gpu_static.py`).
ALIVE = 135 * 2**10
ALIVE_NARROW = 92 * 2**10  # of heads of 16: most of their products are held by every warp
# The same of a kernel that goes through all tiles: it holds on to addresses from tile to tile.
ALIVE_LOOPED = 72 * 2**10


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
    tile = math.gcd(chunk, LEAST)
    columns = width // LEAST if independent(rule) and width % LEAST == 0 else 1
    step, given = carried_by(run, tile, lambda loop: in_columns(loop, columns))
    programs = step.forward(given), step.backward(given)
    for program in programs:
        reason = unsupported(rule, program, TRITON)
        if reason is not None:
            return reason
    needed = max(map(alive, programs))
    room = ALIVE if width > LEAST else ALIVE_NARROW
    if needed > room:
        return (
            f"a tile of {tile} tokens of this rule holds {needed / 2**10:.0f} KiB at once on a "
            f"GPU, where {room / 2**10:.0f} KiB fit into registers"
        )
    tiles = given.streams.q.shape[0]
    return Plan(tile, columns, Layout(WARPS, tiles if needed <= ALIVE_LOOPED else 1))


def alive(program: Program) -> int:
    """Bytes of all values that a tile's equations hold at once, at most."""
    return peak(program.jaxpr, _held, later=True)


def _held(aval: Any) -> int:
    if not aval.shape:
        return 0
    numbers = math.prod(padded(aval.shape))
    return max(4 * numbers, LEAST_HELD)  # a bfloat16, too, takes a register
