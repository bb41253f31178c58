"""Rounding: a step whose products of matrices are those that a `Precision` asks for.

The step is traced to a jaxpr and each `dot_general` in it is replaced; so is its derivative, which
is traced from the step as it was written. No product is missed, whoever wrote it, and what comes
out is plain operations that any backend may trace once more.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from miras.array_typing import Array
from miras.rule.precision import Precision


def rounded(step: Callable[..., Any], precision: Precision) -> Callable[..., Any]:
    """The step, rounding as asked; it can be differentiated backwards, like a kernel.

    Args:
        step: a function of pytrees of arrays.
        precision: of which `matmul` and `accumulation` count here; with both at their defaults the
            step itself is returned.
    """
    if precision.matmul == "default":
        return step

    def rounding(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        learned = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]

        def of_leaves(floats: list[Array], flags: list[Array]) -> Any:
            both = {True: iter(floats), False: iter(flags)}
            return step(*jax.tree.unflatten(tree, [next(both[known]) for known in learned]))

        def derivative(floats: list[Array], flags: list[Array], cotangents: Any) -> Any:
            return jax.vjp(lambda floats: of_leaves(floats, flags), floats)[1](cotangents)[0]

        def forward(floats: list[Array], flags: list[Array]):
            return run(floats, flags), (floats, flags)

        def backward(kept, cotangents: Any):
            return _replaced(derivative, precision)(*kept, cotangents), None

        run = jax.custom_vjp(_replaced(of_leaves, precision))
        run.defvjp(forward, backward)
        floats = [x for x, known in zip(leaves, learned) if known]
        return run(floats, [x for x, known in zip(leaves, learned) if not known])

    return rounding


def _replaced(function: Callable[..., Any], precision: Precision) -> Callable[..., Any]:
    """The function with every product replaced."""

    def of_arrays(*args: Any) -> Any:
        closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
        closed = closed.replace(jaxpr=_in_jaxpr(closed.jaxpr, precision))
        results = jaxpr_as_fun(closed)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return of_arrays


def _in_jaxpr(jaxpr: Jaxpr, precision: Precision) -> Jaxpr:
    return jaxpr.replace(eqns=[_in_equation(eqn, precision) for eqn in jaxpr.eqns])


def _in_equation(eqn: JaxprEqn, precision: Precision) -> JaxprEqn:
    """The product as asked for, or the equation with those inside it replaced."""
    if _is_product(eqn):
        product = jax.jit(functools.partial(_product, eqn.params, precision))
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in _operands(eqn)]
        (call,) = jax.make_jaxpr(product)(*shapes).jaxpr.eqns
        return call.replace(invars=eqn.invars, outvars=eqn.outvars)
    params = {name: _in_value(value, precision) for name, value in eqn.params.items()}
    return eqn.replace(params=params)


def _in_value(value: Any, precision: Precision) -> Any:
    """An equation's parameter with its jaxprs replaced: bodies of loops, branches, calls."""
    if isinstance(value, ClosedJaxpr):
        return value.replace(jaxpr=_in_jaxpr(value.jaxpr, precision))
    if isinstance(value, Jaxpr):
        return _in_jaxpr(value, precision)
    if isinstance(value, tuple):
        parts = [_in_value(part, precision) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _is_product(eqn: JaxprEqn) -> bool:
    """Whether it multiplies two matrices and does not ask for all bits itself."""
    if eqn.primitive is not lax.dot_general_p or eqn.params["precision"] is not None:
        return False
    contracted, batch = eqn.params["dimension_numbers"]
    given = _operands(eqn)
    if math.prod(given[0].shape[i] for i in contracted[0]) == 1:  # nothing is summed
        return False
    own = [x.ndim - len(over) - len(lead) for x, over, lead in zip(given, contracted, batch)]
    return min(own) > 0 and all(jnp.issubdtype(x.dtype, jnp.floating) for x in given)


def _operands(eqn: JaxprEqn) -> list[Any]:
    """The shapes and dtypes of what enters an equation."""
    return [atom.aval for atom in eqn.invars]


def _product(params: dict[str, Any], precision: Precision, x: Array, y: Array) -> Array:
    """One product, its result in the dtype it had."""
    dtype = params["preferred_element_type"] or jnp.result_type(x, y)
    if precision.matmul == "float32":
        return lax.dot_general_p.bind(x, y, **params | {"precision": (lax.Precision.HIGHEST,) * 2})
    low = [operand.astype(jnp.bfloat16) for operand in (x, y)]
    sums = jnp.dtype(precision.accumulation)
    z = lax.dot_general(low[0], low[1], params["dimension_numbers"], preferred_element_type=sums)
    z = z.astype(dtype)
    # XLA may drop the narrowing of a sum that is widened at once; this it may not.
    return lax.reduce_precision(z, 8, 7) if precision.accumulation == "bfloat16" else z
