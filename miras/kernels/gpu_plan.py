"""GPU plan: how a rule's tokens are laid out for a GPU kernel, or why there can be none."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from miras.kernels.columns import in_columns, independent
from miras.kernels.given import backward_program, forward_program, given_by
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
ALIVE = 110 * 2**10
# The same of a kernel that goes through all tiles: it holds on to addresses from tile to tile.
ALIVE_LOOPED = 72 * 2**10


class Plan(NamedTuple):
    """How tokens are laid out.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk.
        columns: heads that each head is computed as, see `columns`.
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
    tile, needed = math.gcd(chunk, LEAST), 0
    for columns in _columns(rule, width):
        step, given = given_by(run, tile, lambda loop, n=columns: in_columns(loop, n))
        programs = [make(step, given) for make in (forward_program, backward_program)]
        for program in programs:
            reason = unsupported(rule, program, TRITON)
            if reason is not None:
                return reason
        needed = max(map(alive, programs))
        if needed <= ALIVE:
            looped = needed <= ALIVE_LOOPED
            group = given.streams.q.shape[0] if looped else 1
            return Plan(tile, columns, Layout(WARPS, group))
    return (
        f"a tile of {tile} tokens of this rule holds {needed / 2**10:.0f} KiB at once on a GPU, "
        f"where {ALIVE / 2**10:.0f} KiB fit into registers"
    )


def _columns(rule: Rule, width: int) -> Iterator[int]:
    """One head as one, as two, and so on."""
    yield 1
    count = 2
    while independent(rule) and width % count == 0 and width // count >= LEAST:
        yield count
        count *= 2


def alive(program: Program) -> int:
    """Bytes of all values that a tile's equations hold at once, at most."""
    return peak(program.jaxpr, _held, later=True)


def _held(aval: Any) -> int:
    if not aval.shape:
        return 0
    numbers = math.prod(padded(aval.shape))
    return max(4 * numbers, LEAST_HELD)  # a bfloat16, too, takes a register
