"""Operations: how those of a traced step take vectors as rows or columns, and matrices turned.

What is not named here takes arrays, by `rewrites.TPU` or as it is.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn

from miras.kernels.forms import Matrix, Vector, elementwise, enter, leave, number
from miras.kernels.program import Evaluate, evaluate
from miras.kernels.rewrites import CALLS, TPU, product
from miras.typing import Array

ELEMENTWISE = frozenset(
    word
    for line in (
        "abs add add_any and atan2 ceil clamp convert_element_type copy cos div eq erf erf_inv",
        "exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne",
        "neg nextafter not or pow rem round rsqrt select_n sign sin sqrt square stop_gradient sub",
        "tan tanh xor",
    )
    for word in line.split()
)
REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_sum": jnp.sum,
    "reduce_max": jnp.max,
    "reduce_min": jnp.min,
}


def run(jaxpr: Jaxpr, constants: Sequence[Array], *args: Array) -> list[Array]:
    """The results of a jaxpr in a TPU kernel."""
    out = evaluate(operation, jaxpr, [*map(enter, constants)], *map(enter, args))
    return [*map(leave, out)]


def operation(eqn: JaxprEqn, inputs: list[Any], inner: Evaluate) -> Sequence[Any]:
    """The results of one equation."""
    name = eqn.primitive.name
    if name in CALLS:
        return CALLS[name](eqn, inputs, inner)
    if name in ELEMENTWISE:
        return [_elementwise(eqn, inputs, inner)]
    if name in FORMED:
        result = FORMED[name](eqn, inputs)
        if result is not None:
            return [result]
    return _on_arrays(eqn, inputs, inner)


def _on_arrays(eqn: JaxprEqn, inputs: list[Any], inner: Evaluate) -> list[Any]:
    def on_arrays(jaxpr, *args: Any) -> list[Array]:
        return [*map(leave, inner(jaxpr, *map(enter, args)))]

    return [*map(enter, _bind(eqn, [*map(leave, inputs)], on_arrays))]


def _bind(eqn: JaxprEqn, inputs: list[Array], inner: Evaluate) -> Sequence[Array]:
    rewrite = TPU.get(eqn.primitive.name)
    if rewrite is not None:
        return rewrite(eqn, inputs, inner)
    out = eqn.primitive.bind(*inputs, **eqn.params)
    return out if eqn.primitive.multiple_results else [out]


def _elementwise(eqn: JaxprEqn, inputs: list[Any], inner: Evaluate) -> Any:
    shape = eqn.outvars[0].aval.shape
    one = lambda *arrays: _bind(eqn, [*arrays], inner)[0]  # noqa: E731
    if len(shape) < 2 and any(isinstance(x, Vector) for x in inputs):
        return elementwise(one, shape, inputs)
    if len(shape) == 2:
        inputs = [_spread(x, shape) if isinstance(x, Vector) else x for x in inputs]
    return enter(one(*map(leave, inputs)))


def _spread(x: Vector, shape: tuple[int, ...]) -> Array:
    """A number, all over a shape."""
    return jnp.broadcast_to(x.row, shape)


def _broadcast(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    x, *_ = inputs
    shape, at = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    if jnp.ndim(x) == 0 if not isinstance(x, Vector) else not x.shape:
        return _filled(x, shape)
    if not isinstance(x, Vector) or len(shape) > 2:
        return None
    if len(shape) == 1:
        return elementwise(lambda x: x, shape, [x])
    return jnp.broadcast_to(x.along(0 if at == (1,) else 1), shape)


def _filled(x: Any, shape: tuple[int, ...]) -> Any:
    """A number, all over a shape."""
    value = x.row if isinstance(x, Vector) else x
    if len(shape) == 1:
        (size,) = shape
        spread = functools.partial(jnp.broadcast_to, value)
        return Vector(shape, row=lambda: spread((1, size)), column=lambda: spread((size, 1)))
    return jnp.broadcast_to(value, shape) if len(shape) <= 2 else None


def _reshape(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    x, *_ = inputs
    shape = eqn.outvars[0].aval.shape
    if isinstance(x, Vector):
        if len(shape) == 2 and 1 in shape:
            return x.along(0 if shape[0] == 1 else 1)
        if shape == x.shape:
            return x
        if 1 in (x.shape or (1,)) and len(shape) < 2:
            return Vector(shape, row=lambda: x.row, column=lambda: x.row)
        return None
    if len(shape) == 1 and x.ndim == 2 and 1 in x.shape:
        return Vector(shape, row=x) if x.shape[0] == 1 else Vector(shape, column=x)
    if shape == () and x.ndim == 2:
        return number(x)
    return None


def _reduce(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    (x,), axes = inputs, eqn.params["axes"]
    reduced = functools.partial(REDUCTIONS[eqn.primitive.name], keepdims=True)
    if isinstance(x, Vector):
        axis = min(x.native)
        return number(reduced(x.along(axis), axis=1 - axis))
    x = leave(x)
    if x.ndim != 2:
        return None
    if axes == (0, 1):
        return number(reduced(x, axis=(0, 1)))
    (axis,) = axes
    one = x if x.shape[axis] == 1 else reduced(x, axis=axis)
    return Vector(eqn.outvars[0].aval.shape, **{("row", "column")[axis]: one})


def _product(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    """Products with vectors as sums, exact in their dtype; of matrices, turned or not."""
    (over, batch) = eqn.params["dimension_numbers"]
    x, y = inputs
    shape = eqn.outvars[0].aval.shape
    vectors = [isinstance(x, Vector) for x in inputs]
    if all(vectors):
        times = lambda a, b: a * b  # noqa: E731
        if not over[0]:
            return x.column * y.row if len(shape) == 2 else elementwise(times, shape, [x, y])
        both = elementwise(times, x.shape, [x, y])
        axis = min(both.native)
        return number(jnp.sum(both.along(axis), axis=1 - axis, keepdims=True))
    if batch[0] or len(over[0]) != 1 or any(len(var.aval.shape) > 2 for var in eqn.invars):
        return None
    if any(vectors):
        vector, matrix, side = (x, y, 1) if vectors[0] else (y, x, 0)
        (axis,) = over[side]
        summed = jnp.sum(leave(matrix) * vector.along(1 - axis), axis=axis, keepdims=True)
        return Vector(shape, **{("row", "column")[axis]: summed})

    def bound(first: Any, i: int, second: Any, j: int) -> Array:
        """Contract dimension i of the first with dimension j of the second, whichever way round."""
        first, i = _either(first, i, 1)
        second, j = _either(second, j, 0)
        params = {**eqn.params, "dimension_numbers": (((i,), (j,)), ((), ()))}
        return product(eqn.replace(params=params), [first, second])

    (i,), (j,) = over
    return Matrix([lambda: bound(x, i, y, j), lambda: bound(y, j, x, i)])


def _either(x: Any, axis: int, wanted: int) -> tuple[Array, int]:
    """A matrix or its transpose, with the dimension that is summed over; rather `wanted`."""
    if not isinstance(x, Matrix):
        return x, axis
    turn = axis != wanted if x.native and x.transpose.native else not x.native
    return (x.transpose.array, 1 - axis) if turn else (x.array, axis)


def _transposed(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    (x,) = inputs
    if isinstance(x, Vector):
        return x
    if eqn.params["permutation"] != (1, 0):
        return None
    return (x if isinstance(x, Matrix) else Matrix([x, None])).transpose


def _positions(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    del inputs
    shape, dtype = eqn.params["shape"], eqn.params["dtype"]
    if len(shape) != 1:
        return None
    (size,) = shape
    count = functools.partial(lax.broadcasted_iota, dtype)
    return Vector(shape, row=lambda: count((1, size), 1), column=lambda: count((size, 1), 0))


FORMED: dict[str, Callable[[JaxprEqn, list[Any]], Any]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    **dict.fromkeys(REDUCTIONS, _reduce),
    "dot_general": _product,
    "transpose": _transposed,
    "iota": _positions,
}
