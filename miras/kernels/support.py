"""Support: whether a kernel's compiler knows all operations of a program, and if not, whose."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from jax.extend.core import JaxprEqn

from miras.kernels.program import Program, chains
from miras.kernels.rewrites import CALLS, FORMS, TPU
from miras.rule import Rule

# What Mosaic, the TPU's compiler of kernels, lowers as it is (jax 0.10).
MOSAIC = frozenset(
    word
    for line in (
        "abs add add_any and argmax argmin atan2 bitcast_convert_type ceil clamp concatenate",
        "convert_element_type copy cos div eq erf erf_inv exp exp2 floor ge gt integer_pow iota",
        "is_finite le log log1p logistic lt max min mul ne neg nextafter not or population_count",
        "reduce_and reduce_max reduce_min reduce_or reduce_sum rem reshard round rsqrt select_n",
        "shift_left shift_right_arithmetic shift_right_logical sign sin slice split sqrt square",
        "squeeze stack stop_gradient sub tan tanh tile unstack xor",
    )
    for word in line.split()
)


def unsupported(rule: Rule, program: Program) -> str | None:
    """A sentence on the first operation that no TPU kernel can have; None if there is none."""
    for chain in chains(program.jaxpr):
        eqn = chain[-1]
        name = eqn.primitive.name
        known = name in MOSAIC or name in CALLS or (name in TPU and FORMS.get(name, _any)(eqn))
        if not known:
            return f"{_origin(rule, chain)} uses {name!r}, which a TPU kernel cannot have"
    return None


def _any(eqn: JaxprEqn) -> bool:
    del eqn
    return True


def _origin(rule: Rule, chain: Sequence[JaxprEqn]) -> str:
    """Which member of the rule an equation comes from, with its line.

    What a library function holds may have been traced for another call of it: then the equation
    that calls it says where.
    """
    tracebacks = (eqn.source_info.traceback for eqn in reversed(chain))
    for frame in (frame for found in tracebacks if found is not None for frame in found.frames):
        for axis, member in _members(rule):
            if frame.file_name == inspect.getsourcefile(type(member)):
                at = f"{Path(frame.file_name).name}:{frame.line_num}"
                return f"{axis} {member.kind!r} ({at}, in {frame.function_name})"
    return "the engine"


def _members(rule: Rule):
    for axis in ("memory", "bias", "retention", "algorithm"):
        member = getattr(rule, axis)
        while member is not None:
            yield axis, member
            member = getattr(member, "inner", None)
