"""Program: a function of a pytree, traced to equations that a kernel evaluates.

Members are written in plain jax.numpy: what a kernel's compiler lacks is made up for in one place,
its `Lowerings`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, Literal

from miras.array_typing import Array
from miras.backends.pallas.trace.jaxprs import bind, source_of

# Equations by which one pair of instances lags behind the pair before it, see `interleaved`. Chosen
# on 2026-11-21 by `python -m benchmarks.tpu_schedule` (v5e, jax 0.10.2, libtpu 0.0.42): 20 make
# results wait, as more than 2 do in programs of less than 250 equations.
LAG = 5
SHORT = 50  # equations of a program for each one of lag


class Program(NamedTuple):
    """A traced function.

    Attributes:
        jaxpr: the equations, without constants.
        constants: arrays that the function had captured; a kernel takes them as inputs.
        out_tree: structure of its results.
    """

    jaxpr: Jaxpr
    constants: list[Array]
    out_tree: Any

    def __call__(
        self, evaluate: Callable[..., list[Any]], constants: Sequence[Array], *args: Any
    ) -> Any:
        """Evaluate inside a kernel.

        Args:
            evaluate: (jaxpr, constants, *leaves) -> results, of the kernel's compiler.
            constants: the captured arrays, as the kernel has them.
            *args: of the function.
        """
        out = evaluate(self.jaxpr, constants, *jax.tree.leaves(args))
        return jax.tree.unflatten(self.out_tree, out)

    def interleaved(self, instances: Sequence[Any], *, in_step: bool) -> list[Any]:
        """Evaluate for several tuples of arguments, equation by equation, without constants.

        A kernel's compiler keeps near to the order of its source: independent equations of several
        instances stand next to each other here, so that none waits for its own results.

        Args:
            instances: arguments of each.
            in_step: whether all instances are at the same equation. Otherwise pairs lag behind each
                other, so that not all want the same unit of the core at once, most of all the one
                that stores.
        """
        jaxpr, environments = self.jaxpr, []
        for args in instances:
            environments.append(dict(zip(jaxpr.invars, jax.tree.leaves(args), strict=True)))

        def read(values, atom):
            return atom.val if isinstance(atom, Literal) else values[atom]

        lag = 0 if in_step else min(LAG, len(jaxpr.eqns) // SHORT)
        places = itertools.product(range(len(jaxpr.eqns)), range(len(environments)))
        for i, n in sorted(places, key=lambda place: place[0] + place[1] // 2 * lag):
            eqn, values = jaxpr.eqns[i], environments[n]
            with source_of(eqn)():
                out = bind(eqn, [read(values, atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, out, strict=True))
        results = [[read(values, atom) for atom in jaxpr.outvars] for values in environments]
        return [jax.tree.unflatten(self.out_tree, one) for one in results]


def trace(function: Callable[..., Any], *shapes: Any) -> Program:
    """The program of a function at arguments of these shapes (`jax.ShapeDtypeStruct` leaves)."""
    closed, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
    return Program(closed.jaxpr, list(closed.consts), jax.tree.structure(out))


def shapes_of(tree: Any, lead: int = 0) -> Any:
    """The shapes of a tree's leaves without their first `lead` dimensions."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), tree)


def stacked_shapes(tree: Any, *lead: int) -> Any:
    """Shapes with further dimensions in front."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype), tree)
