"""GPU plan: how a rule's tokens are laid out for a GPU kernel, or why there can be none."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from miras.kernels.given import backward_program, forward_program, given_by
from miras.kernels.gpu import Layout
from miras.kernels.padded import LEAST, padded
from miras.kernels.program import Program, peak
from miras.kernels.support import unsupported
from miras.kernels.triton import TRITON
from miras.kernels.used import used_of
from miras.rule import Rule

WARPS = 8


class Plan(NamedTuple):
    """How tokens are laid out.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk.
        layout: how the kernels go through them.
    """

    tile: int
    layout: Layout


def plan(rule: Rule, run: Callable[..., Any], chunk: int) -> Plan | str:
    """The plan for a call, or a sentence that says why no kernel can take it.

    Args:
        rule: the four parts.
        run: `xla.run` with all its arguments but `loop` and `tile`.
        chunk: tokens of a chunk.
    """
    tile = math.gcd(chunk, LEAST)
    step, given = given_by(run, tile)
    programs = [make(step, given) for make in (forward_program, backward_program)]
    for program in programs:
        reason = unsupported(rule, program, TRITON)
        if reason is not None:
            return reason
    return Plan(tile, Layout(WARPS, 1))


def alive(program: Program) -> int:
    """Bytes of all values that a tile's equations hold at once, at most."""
    return peak(program.jaxpr, _bytes)


def _bytes(aval: Any) -> int:
    return math.prod(padded(aval.shape)) * max(aval.dtype.itemsize, 4)
