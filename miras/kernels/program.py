"""Program: a traced step, and how it is evaluated inside a kernel.

A step is traced once, outside of the kernel, to a jaxpr. Inside, its equations are bound one by
one, but for those whose primitive has a rewrite: an equal form that the kernel's compiler knows. So
members are written in plain jax.numpy, and what a compiler lacks is mended in one table.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from miras.typing import Array

# (equation, its inputs, evaluate) -> its outputs; `evaluate` runs a jaxpr that the equation holds.
Evaluate = Callable[..., list[Array]]
Rewrite = Callable[[JaxprEqn, list[Array], Evaluate], Sequence[Array]]


class Program(NamedTuple):
    """A function of a pytree, as equations.

    Attributes:
        jaxpr: the equations, without constants.
        constants: the arrays that the function had captured; a kernel takes them as inputs.
        out_tree: of its results.
    """

    jaxpr: Jaxpr
    constants: list[Array]
    out_tree: Any

    def __call__(self, rewrites: dict[str, Rewrite], constants: Sequence[Array], *args: Any) -> Any:
        """Evaluate inside a kernel."""
        out = evaluate(rewrites, self.jaxpr, constants, *jax.tree.leaves(args))
        return jax.tree.unflatten(self.out_tree, out)


def trace(function: Callable[..., Any], *shapes: Any) -> Program:
    """The program of a function at arguments of these shapes (`jax.ShapeDtypeStruct` leaves)."""
    closed, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
    return Program(closed.jaxpr, list(closed.consts), jax.tree.structure(out))


def evaluate(
    rewrites: dict[str, Rewrite], jaxpr: Jaxpr, constants: Sequence[Array], *args: Array
) -> list[Array]:
    """The results of a jaxpr, with rewrites where there are any.

    An argument may be a function without arguments that gives it: it is called at every use.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *args], strict=True))

    def read(atom) -> Any:
        value: Any = atom.val if isinstance(atom, Literal) else values[atom]
        return value() if callable(value) else value

    def inner(jaxpr: Jaxpr | ClosedJaxpr, *args: Array) -> list[Array]:
        if isinstance(jaxpr, ClosedJaxpr):
            return evaluate(rewrites, jaxpr.jaxpr, jaxpr.consts, *args)
        return evaluate(rewrites, jaxpr, [], *args)

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        rewrite = rewrites.get(eqn.primitive.name)
        if rewrite is not None:
            out = rewrite(eqn, inputs, inner)
        else:
            out = eqn.primitive.bind(*inputs, **eqn.params)
            out = out if eqn.primitive.multiple_results else [out]
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def loop_parts(
    eqn: JaxprEqn, inputs: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """The inputs of a `scan`: constants, the carry's start, and what it goes through."""
    if "ft_in" in eqn.params:  # jax 0.11
        n, m, _ = (len(group) for group in eqn.params["ft_in"].unpack())
    else:
        n, m = eqn.params["num_consts"], eqn.params["num_carry"]
    return inputs[:n], inputs[n : n + m], inputs[n + m :]


def held(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs that an equation holds: bodies of loops, branches, calls."""
    for value in eqn.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations, those of jaxprs inside equations too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in held(eqn):
            yield from equations(inner)


def peak(jaxpr: Jaxpr, size: Callable[[Any], int], *, later: bool = False) -> int:
    """The size of all values that are alive at once, at most, by the size of each one's aval.

    Inputs are alive from the start; with `later` only from their first use.
    """
    last: dict[Any, int] = {}
    for at, eqn in enumerate(jaxpr.eqns):
        last.update((var, at) for var in eqn.invars if not isinstance(var, Literal))
    last.update((var, len(jaxpr.eqns)) for var in jaxpr.outvars if not isinstance(var, Literal))
    given = {var: size(var.aval) for var in (*jaxpr.constvars, *jaxpr.invars)}
    alive = {} if later else dict(given)
    most = sum(alive.values())
    for at, eqn in enumerate(jaxpr.eqns):
        used = [var for var in eqn.invars if not isinstance(var, Literal)]
        alive.update((var, given[var]) for var in used if var in given)
        alive.update((var, size(var.aval)) for var in eqn.outvars)
        inside = max((peak(inner, size, later=later) for inner in held(eqn)), default=0)
        most = max(most, sum(alive.values()) + inside)
        alive = {var: bytes for var, bytes in alive.items() if last.get(var, -1) > at}
    return most
