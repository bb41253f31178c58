"""Program: a traced step, and how it is evaluated inside a kernel.

A step is traced once, outside of the kernel, to a jaxpr. Inside, its equations are evaluated one by
one in a form that the kernel's compiler knows. So members are written in plain jax.numpy, and what
a compiler lacks is mended in one place.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from miras.array_typing import Array

LAG = 5  # equations at most; 20 make results wait, as more than 2 do in short programs
# (equation, its inputs, evaluate) -> its outputs; `evaluate` runs a jaxpr that the equation holds.
Evaluate = Callable[..., list[Any]]
Operation = Callable[[JaxprEqn, list[Any], Evaluate], Sequence[Any]]


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

    def __call__(self, run: Callable[..., Any], constants: Sequence[Array], *args: Any) -> Any:
        """Evaluate inside a kernel, by its run(jaxpr, constants, *leaves)."""
        out = run(self.jaxpr, constants, *jax.tree.leaves(args))
        return jax.tree.unflatten(self.out_tree, out)

    def side_by_side(self, each: Sequence[Any], *, abreast: bool) -> list[Any]:
        """Evaluate for several tuples of arguments, equation by equation, without constants.

        A kernel's compiler keeps near to the order of its source: what need not wait for each
        other stands together here. If not `abreast`, pairs go some equations apart, so that not all
        want the same of the core's units at once, most of all the one that stores.
        """
        jaxpr, several = self.jaxpr, []
        for args in each:
            several.append(dict(zip(jaxpr.invars, jax.tree.leaves(args), strict=True)))

        def read(values, atom):
            return atom.val if isinstance(atom, Literal) else values[atom]

        lag = 0 if abreast else min(LAG, len(jaxpr.eqns) // 50)
        places = itertools.product(range(len(jaxpr.eqns)), range(len(several)))
        for i, n in sorted(places, key=lambda place: place[0] + place[1] // 2 * lag):
            eqn, values = jaxpr.eqns[i], several[n]
            out = bind(eqn, [read(values, atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, out, strict=True))
        out = [[read(values, atom) for atom in jaxpr.outvars] for values in several]
        return [jax.tree.unflatten(self.out_tree, one) for one in out]


def trace(function: Callable[..., Any], *shapes: Any) -> Program:
    """The program of a function at arguments of these shapes (`jax.ShapeDtypeStruct` leaves)."""
    closed, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
    return Program(closed.jaxpr, list(closed.consts), jax.tree.structure(out))


def used(program: Program) -> list[bool]:
    """Whether a program's results depend on each of its arguments."""
    jaxpr = program.jaxpr
    results = variables(jaxpr.outvars)
    read = (var for eqn in of_use(jaxpr.eqns, results) for var in variables(eqn.invars))
    needed = {*results, *read}
    return [var in needed for var in jaxpr.invars]


def of_use(eqns: Sequence[JaxprEqn], wanted: Sequence[Any]) -> list[JaxprEqn]:
    """The equations that variables depend on."""
    found, needed = [], set(wanted)
    for eqn in reversed(eqns):
        if needed.intersection(eqn.outvars):
            found.append(eqn)
            needed.update(variables(eqn.invars))
    return found[::-1]


def variables(atoms: Sequence[Any]) -> list[Any]:
    """Those that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def evaluate(operation: Operation, jaxpr: Jaxpr, constants: Sequence[Any], *args: Any) -> list[Any]:
    """The results of a jaxpr whose equations are evaluated by `operation`.

    An argument may be a function without arguments that gives it: it is called at every use.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *args], strict=True))

    def read(atom) -> Any:
        value: Any = atom.val if isinstance(atom, Literal) else values[atom]
        return value() if callable(value) else value

    def inner(jaxpr: Jaxpr | ClosedJaxpr, *args: Any) -> list[Any]:
        if isinstance(jaxpr, ClosedJaxpr):
            return evaluate(operation, jaxpr.jaxpr, jaxpr.consts, *args)
        return evaluate(operation, jaxpr, [], *args)

    for eqn in jaxpr.eqns:
        out = operation(eqn, [read(atom) for atom in eqn.invars], inner)
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def rewritten(
    rewrites: dict[str, Operation], eqn: JaxprEqn, inputs: list[Any], inner: Evaluate
) -> Sequence[Any]:
    """An equation's results: by the table's form of it, or as it is."""
    rewrite = rewrites.get(eqn.primitive.name)
    if rewrite is not None:
        return rewrite(eqn, inputs, inner)
    return bind(eqn, inputs)


def bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any]:
    """An equation's results, as it is."""
    out = eqn.primitive.bind(*inputs, **eqn.params)
    return out if eqn.primitive.multiple_results else [out]


def loop_parts(
    eqn: JaxprEqn, inputs: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """The inputs of a `scan`: constants, the carry's start, and what it goes through."""
    if "ft_in" in eqn.params:  # jax 0.11
        n, m, _ = (len(group) for group in eqn.params["ft_in"].unpack())
    else:
        n, m = eqn.params["num_consts"], eqn.params["num_carry"]
    return inputs[:n], inputs[n : n + m], inputs[n + m :]


def inputs_of(eqn: JaxprEqn) -> list[Any]:
    """The shapes and dtypes of what enters an equation."""
    return [atom.aval for atom in eqn.invars]


def results_of(eqn: JaxprEqn) -> list[Any]:
    """The shapes and dtypes of what it gives."""
    return [var.aval for var in eqn.outvars]


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
    return (chain[-1] for chain in chains(jaxpr))


def chains(jaxpr: Jaxpr) -> Iterator[tuple[JaxprEqn, ...]]:
    """All equations, each behind those that hold it."""
    for eqn in jaxpr.eqns:
        yield (eqn,)
        for inner in held(eqn):
            yield from ((eqn, *chain) for chain in chains(inner))


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
