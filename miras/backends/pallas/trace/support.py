"""Support: whether a kernel's compiler knows all operations of a program, and if not, whose."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jax.extend.core import JaxprEqn

from miras.backends.pallas.trace.program import Operation, Program, chains
from miras.rule.rule import Rule


class Compiler(NamedTuple):
    """What a compiler of kernels knows.

    Attributes:
        device: what it compiles for.
        lowered: the operations that it lowers as they are.
        rewrites: equal forms of others.
        forms: of an operation that its rewrite takes, where it does not take all.
    """

    device: str
    lowered: frozenset[str]
    rewrites: dict[str, Operation]
    forms: dict[str, Callable[[JaxprEqn], bool]]


def unsupported(rule: Rule, program: Program, compiler: Compiler) -> str | None:
    """A sentence on the first operation that no kernel can have; None if there is none."""
    for chain in chains(program.jaxpr):
        eqn = chain[-1]
        name = eqn.primitive.name
        known = name in compiler.lowered
        if name in compiler.rewrites:
            known = compiler.forms.get(name, lambda eqn: True)(eqn)
        if not known:
            kernel = f"a {compiler.device} kernel"
            return f"{_origin(rule, chain)} uses {name!r}, which {kernel} cannot have"
    return None


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
