"""Liveness: which equations of a jaxpr are live, and how much is live at once."""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn

from miras.backends.pallas.trace.jaxprs import inner_jaxprs, variables


def live_arguments(jaxpr: Jaxpr) -> list[bool]:
    """Whether a jaxpr's results depend on each of its arguments."""
    results = variables(jaxpr.outvars)
    live = live_equations(jaxpr.eqns, results)
    needed = {*results, *(var for eqn in live for var in variables(eqn.invars))}
    return [var in needed for var in jaxpr.invars]


def live_equations(eqns: Sequence[JaxprEqn], wanted: Sequence[Any]) -> list[JaxprEqn]:
    """Dead-code elimination: the equations that some variables depend on, in their order."""
    found, needed = [], set(wanted)
    for eqn in reversed(eqns):
        if needed.intersection(eqn.outvars):
            found.append(eqn)
            needed.update(variables(eqn.invars))
    return found[::-1]


def peak_live_size(
    jaxpr: Jaxpr,
    size: Callable[[Any], int],
    *,
    inputs_on_use: bool = False,
    results_until_use: bool = False,
) -> int:
    """The largest total size of all values that are live at the same equation.

    Args:
        jaxpr: the equations.
        size: of a value, by its aval.
        inputs_on_use: whether inputs are live from their first use on; else from the start.
        results_until_use: whether results are live until their last use; else until the end.
    """
    last_use: dict[Any, int] = {}
    for at, eqn in enumerate(jaxpr.eqns):
        last_use.update((var, at) for var in variables(eqn.invars))
    if not results_until_use:
        last_use.update((var, len(jaxpr.eqns)) for var in variables(jaxpr.outvars))
    inputs = {var: size(var.aval) for var in (*jaxpr.constvars, *jaxpr.invars)}
    live = {} if inputs_on_use else dict(inputs)
    peak = sum(live.values())
    for at, eqn in enumerate(jaxpr.eqns):
        live.update((var, inputs[var]) for var in variables(eqn.invars) if var in inputs)
        live.update((var, size(var.aval)) for var in eqn.outvars)
        nested = (
            peak_live_size(inner, size, inputs_on_use=inputs_on_use) for inner in inner_jaxprs(eqn)
        )
        peak = max(peak, sum(live.values()) + max(nested, default=0))
        live = {var: bytes for var, bytes in live.items() if last_use.get(var, -1) > at}
    return peak
