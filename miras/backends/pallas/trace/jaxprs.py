"""Jaxprs: what their equations hold, and how they are evaluated inside a kernel.

A step is traced once, outside of the kernel, to a jaxpr. Inside, its equations are evaluated one by
one in a form that the kernel's compiler has a lowering for. New equations keep the source line and
the name stack (`jax.named_scope`) of the equation that they come from, so that errors and profiles
name the step's parts.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

# Evaluate(jaxpr, *inputs): the results of a jaxpr that an equation holds.
Evaluate = Callable[..., list[Any]]


def evaluate(
    lower: Callable[[JaxprEqn, list[Any], Evaluate], Sequence[Any]],
    jaxpr: Jaxpr,
    constants: Sequence[Any],
    *args: Any,
    computed: Callable[[Any, Any], None] | None = None,
) -> list[Any]:
    """The results of a jaxpr whose equations are evaluated by `lower`.

    Args:
        lower: (equation, its inputs, `Evaluate`) -> its results.
        jaxpr: the equations.
        constants: values of `jaxpr.constvars`.
        *args: values of `jaxpr.invars`. One may be a function without arguments that reads the
            value: it is called at every use, so that the value takes no register in between.
        computed: called with each variable and its value after the equation that computes it.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *args], strict=True))

    def read(atom) -> Any:
        value: Any = atom.val if isinstance(atom, Literal) else values[atom]
        return value() if callable(value) else value

    def inner(jaxpr: Jaxpr | ClosedJaxpr, *args: Any) -> list[Any]:
        if isinstance(jaxpr, ClosedJaxpr):
            return evaluate(lower, jaxpr.jaxpr, jaxpr.consts, *args)
        return evaluate(lower, jaxpr, [], *args)

    for eqn in jaxpr.eqns:
        with source_of(eqn)():
            out = lower(eqn, [read(atom) for atom in eqn.invars], inner)
        values.update(zip(eqn.outvars, out, strict=True))
        if computed is not None:
            for var, value in zip(eqn.outvars, out):
                computed(var, value)
    return [read(atom) for atom in jaxpr.outvars]


def source_of(eqn: JaxprEqn) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Makes contexts in which new equations have an equation's source, as `jax.core.eval_jaxpr`.

    The name stack is fixed here: a context that is entered later, inside that of another equation,
    has the same.
    """
    stack = source_info_util.current_name_stack() + eqn.source_info.name_stack

    @contextlib.contextmanager
    def source() -> Iterator[None]:
        traceback = eqn.source_info.traceback
        with source_info_util.user_context(traceback, name_stack=stack), eqn.ctx.manager:
            yield

    return source


def bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any]:
    """An equation's results, as it is."""
    out = eqn.primitive.bind(*inputs, **eqn.params)
    return out if eqn.primitive.multiple_results else [out]


def unpack_scan_inputs(
    eqn: JaxprEqn, inputs: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """The inputs of a `scan`: its constants, initial carry and scanned arrays."""
    if "ft_in" in eqn.params:  # jax 0.11 and later
        n, m, _ = (len(group) for group in eqn.params["ft_in"].unpack())
    else:
        n, m = eqn.params["num_consts"], eqn.params["num_carry"]
    return inputs[:n], inputs[n : n + m], inputs[n + m :]


def in_avals(eqn: JaxprEqn) -> list[Any]:
    """The shapes and dtypes of an equation's inputs."""
    return [atom.aval for atom in eqn.invars]


def out_avals(eqn: JaxprEqn) -> list[Any]:
    """The shapes and dtypes of an equation's results."""
    return [var.aval for var in eqn.outvars]


def variables(atoms: Sequence[Any]) -> list[Any]:
    """Those that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs that an equation holds: bodies of loops, branches, calls."""
    for value in eqn.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations, those of jaxprs inside equations too."""
    return (path[-1] for path in equation_paths(jaxpr))


def equation_paths(jaxpr: Jaxpr) -> Iterator[tuple[JaxprEqn, ...]]:
    """All equations, each after those that hold it, outermost first."""
    for eqn in jaxpr.eqns:
        yield (eqn,)
        for inner in inner_jaxprs(eqn):
            yield from ((eqn, *path) for path in equation_paths(inner))
