"""Code sinking: equations moved towards the first use of their results, which then live shorter.

`jax.vjp` computes what the backward part needs, such as derivatives of functions, in the forward
part. Each such value is live in between, though most could be computed where they are used, from
values that are live anyway.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import JaxprEqn

from miras.backends.pallas.trace.jaxprs import variables


def sunk(eqns: Sequence[JaxprEqn], size: Callable[[Any], int]) -> list[JaxprEqn]:
    """The equations, each before the first that reads a result of it, where that frees registers.

    Where it is, its results are live until then; there, operands of which it is the last reader
    are. So an equation moves if its results are as large as those operands. Arguments of the
    program cost nothing: a kernel reads them from memory where they are used.

    Args:
        eqns: in an order in which they can be computed.
        size: of a value, by its aval.
    """
    order, computed = list(eqns), {var for eqn in eqns for var in eqn.outvars}
    for at in reversed(range(len(order))):
        eqn, after = order[at], order[at + 1 :]
        reads = (n for n, other in enumerate(after) if _reads(other, eqn.outvars))
        place = next(reads, 0)  # results without a reader stay where they are
        later = {var for other in after[place:] for var in variables(other.invars)}
        extended = [v for v in {*variables(eqn.invars)} if v in computed and v not in later]
        cost, gain = (sum(size(v.aval) for v in group) for group in (extended, eqn.outvars))
        if cost <= gain:
            order[at:] = [*after[:place], eqn, *after[place:]]
    return order


def _reads(eqn: JaxprEqn, results: Sequence[Any]) -> bool:
    return any(var in results for var in variables(eqn.invars))
