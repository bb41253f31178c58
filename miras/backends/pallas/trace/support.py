"""Support: whether a kernel's compiler can have a program, and if not, which member is why."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from jax.extend.core import JaxprEqn

from miras.backends.pallas.trace.jaxprs import equation_paths
from miras.backends.pallas.trace.lowerings import Lowerings
from miras.backends.pallas.trace.program import Program
from miras.rule.rule import Rule


def unsupported(rule: Rule, program: Program, lowerings: Lowerings) -> str | None:
    """A sentence on the first operation without a lowering; None if all have one.

    Operations that hold jaxprs are followed by those inside.
    """
    for path in equation_paths(program.jaxpr):
        if not lowerings.supports(path[-1]):
            name = path[-1].primitive.name
            kernel = f"a {lowerings.target} kernel"
            return f"{_origin(rule, path)} uses {name!r}, which {kernel} cannot have"
    return None


def _origin(rule: Rule, path: Sequence[JaxprEqn]) -> str:
    """Which member of the rule an equation comes from, with its line.

    What a library function holds may have been traced for another call of it: then the equation
    that calls it says where.
    """
    tracebacks = (eqn.source_info.traceback for eqn in reversed(path))
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
