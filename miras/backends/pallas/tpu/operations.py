"""Operations: how those of a traced step take vectors as rows or columns, and matrices turned.

What is not named here takes arrays, by `rewrites.TPU` or as it is.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.target import ROWS
from miras.backends.pallas.tpu.forms import (
    Forms,
    Matrix,
    Vector,
    enter,
    leave,
    matrixwise,
    number,
    registers,
    vectorwise,
)
from miras.backends.pallas.tpu.products import product
from miras.backends.pallas.trace.program import (
    Evaluate,
    evaluate,
    inputs_of,
    loop_parts,
    results_of,
    rewritten,
)
from miras.backends.pallas.trace.rewrites import CALLS, TPU, running

ELEMENTWISE = frozenset(
    word
    for line in (
        "abs add add_any and atan atan2 ceil clamp convert_element_type copy cos div eq erf",
        "erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min",
        "mul ne neg nextafter not or pow rem round rsqrt select_n sign sin sqrt square",
        "stop_gradient sub tan tanh xor",
    )
    for word in line.split()
)
AROUND = ("scan", "while", "cond")
REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_sum": jnp.sum,
    "reduce_max": jnp.max,
    "reduce_min": jnp.min,
}


def run(jaxpr: Jaxpr, constants: Sequence[Array], *args: Any) -> list[Any]:
    """The results of a jaxpr in a TPU kernel, by their forms; `forms.leave` makes them arrays."""
    return evaluate(operation, jaxpr, [*map(enter, constants)], *map(enter, args))


def operation(eqn: JaxprEqn, inputs: list[Any], inner: Evaluate) -> Sequence[Any]:
    """The results of one equation."""
    name = eqn.primitive.name
    if name in ("jit", "pjit") and eqn.params["name"] in NAMED:
        result = NAMED[eqn.params["name"]](eqn, inputs)
        if result is not None:
            return [result]
    if name in CALLS:
        return CALLS[name](eqn, inputs, inner)
    if name in ELEMENTWISE:
        return [_elementwise(eqn, inputs, inner)]
    if name in AROUND:
        return _around(eqn, inputs, inner)
    if name in FORMED:
        result = FORMED[name](eqn, inputs)
        if result is not None:
            return [result]
    return _on_arrays(eqn, inputs, inner)


def _on_arrays(eqn: JaxprEqn, inputs: list[Any], inner: Evaluate) -> list[Any]:
    return [*map(enter, rewritten(TPU, eqn, [*map(leave, inputs)], inner))]


def _around(eqn: JaxprEqn, inputs: list[Any], inner: Evaluate) -> list[Any]:
    """A loop or a branch: vectors go in and out as rows, of which the compiler makes no mistake."""

    def on_rows(jaxpr: Any, *args: Any) -> list[Array]:
        shapes = (var.aval for var in getattr(jaxpr, "jaxpr", jaxpr).invars)
        return [*map(_row, inner(jaxpr, *map(_as, args, shapes)))]

    first = len(inputs)
    if eqn.primitive.name == "scan":  # what it goes through has a dimension more
        constants, carry, _ = loop_parts(eqn, inputs)
        first = len(constants) + len(carry)
    rows = [*map(_row, inputs[:first]), *map(leave, inputs[first:])]
    return [*map(_as, rewritten(TPU, eqn, rows, on_rows), results_of(eqn))]


def _row(x: Any) -> Array:
    """A vector as a row, others as arrays."""
    return x.row if isinstance(x, Vector) and x.shape else leave(x)


def _as(x: Any, aval: Any) -> Any:
    """The inverse."""
    is_row = len(aval.shape) == 1 and jnp.ndim(x) == 2
    return Vector(aval.shape, row=x) if is_row else enter(x)


def _elementwise(eqn: JaxprEqn, inputs: list[Any], inner: Evaluate) -> Any:
    shape = results_of(eqn)[0].shape
    one = lambda *arrays: rewritten(TPU, eqn, [*arrays], inner)[0]  # noqa: E731
    if len(shape) < 2 and any(isinstance(x, Vector) for x in inputs):
        return vectorwise(one, shape, inputs)
    if len(shape) == 2:
        result = matrixwise(one, shape, inputs)
        was = inputs_of(eqn)[0].dtype
        result.binary = eqn.primitive.name == "convert_element_type" and was == jnp.bool_
        return result
    return one(*map(leave, inputs))


def _broadcast(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    x, *_ = inputs
    shape, at = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    if len(shape) > 2 or isinstance(x, Matrix):
        return None
    if not isinstance(x, Vector):  # a number outside of the registers
        if not shape:
            return x
        x = number(jnp.broadcast_to(x, (1, 1)))
    if len(shape) == 1:
        return vectorwise(lambda x: x, shape, [x])
    return x.as_matrix(1 if at == (0,) else 0, shape)


def _reshape(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    x, *_ = inputs
    shape = results_of(eqn)[0].shape
    if isinstance(x, Vector):
        if len(shape) == 2 and 1 in shape:
            return x.as_matrix(0 if shape[0] == 1 else 1, shape)
        if shape == x.shape:
            return x
        one = (1,) in (shape, x.shape) and len(shape) < 2
        return Vector(shape, row=lambda: x.row, column=lambda: x.column) if one else None
    if not isinstance(x, Matrix) or 1 not in x.shape or len(shape) > 1:
        return None
    side = 0 if x.shape[0] == 1 else 1
    native = {at: lambda at=at: x.forms.get(x.side ^ side ^ at) for at in (0, 1)}
    native = {at: form for at, form in native.items() if x.forms.has(x.side ^ side ^ at)}
    return Vector(shape, row=native.get(0), column=native.get(1))


def _reduce(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    (x,), axes = inputs, eqn.params["axes"]
    reduced = functools.partial(REDUCTIONS[eqn.primitive.name], keepdims=True)
    if isinstance(x, Vector):
        side = min(x.native)
        return number(reduced(x.get(side), axis=1 - side))
    if not isinstance(x, Matrix):
        return None
    side = x.side if x.forms.has(x.side) else 1 - x.side
    array, flip = x.forms.get(side), side != x.side
    if axes == (0, 1):
        return number(reduced(array, axis=(0, 1)))
    (axis,) = axes
    axis ^= flip
    one = array if array.shape[axis] == 1 else reduced(array, axis=axis)
    return Vector(results_of(eqn)[0].shape, **{("row", "column")[axis]: one})


def _product(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    """Products with vectors as sums, exact in their dtype; of matrices, turned or not."""
    (over, batch) = eqn.params["dimension_numbers"]
    if batch[0] or len(over[0]) > 1:
        return None
    x, y = inputs
    shape, dtype = results_of(eqn)[0].shape, results_of(eqn)[0].dtype
    kinds = tuple(type(x) for x in inputs)
    if kinds == (Vector, Vector):
        return _of_vectors(x, y, shape, summed=bool(over[0]))
    if not over[0]:
        return None
    if kinds in ((Vector, Matrix), (Matrix, Vector)):
        vector, matrix, (axis,) = (x, y, over[1]) if kinds[0] is Vector else (y, x, over[0])
        side = matrix.side if matrix.forms.has(matrix.side) else 1 - matrix.side
        axis ^= side != matrix.side
        both = matrix.forms.get(side).astype(dtype) * vector.get(1 - axis)
        return Vector(shape, **{("row", "column")[axis]: jnp.sum(both, axis=axis, keepdims=True)})
    if kinds != (Matrix, Matrix):
        return None

    def bound(first: Matrix, i: int, second: Matrix, j: int) -> Array:
        """Sum over dimension i of the first and j of the second."""
        binary = first.binary, second.binary
        one, i = _either(first, i, 1)
        other, j = _either(second, j, 0)
        return product(one, other, (i, j), eqn.params["precision"], binary, dtype)

    (i,), (j,) = over
    forms = functools.partial(bound, x, i, y, j), functools.partial(bound, y, j, x, i)
    return Matrix(shape, Forms(forms))


def _of_vectors(x: Vector, y: Vector, shape: tuple[int, ...], *, summed: bool) -> Any:
    def times(a: Array, b: Array) -> Array:
        return a * b

    if summed:
        both = vectorwise(times, x.shape, [x, y])
        side = min(both.native)
        return number(jnp.sum(both.get(side), axis=1 - side, keepdims=True))
    if len(shape) == 2:
        forms = (lambda: x.column * y.row), (lambda: y.column * x.row)
        return Matrix(shape, Forms(forms))
    return vectorwise(times, shape, [x, y])


def _either(x: Matrix, axis: int, wanted: int) -> tuple[Array, int]:
    """A matrix or its transpose, with the dimension that is summed over; rather `wanted`."""

    def cost(turn: int):
        shape = x.shape[::-1] if turn else x.shape
        return not x.forms.has(x.side ^ turn), registers(shape), axis ^ turn != wanted

    turn = min((0, 1), key=cost)
    return x.forms.get(x.side ^ turn), axis ^ turn


def _transposed(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    (x,) = inputs
    if isinstance(x, Vector):
        return x
    if not isinstance(x, Matrix):
        return None
    return x.transpose if eqn.params["permutation"] == (1, 0) else x


def _entry(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    """One entry of a vector, at a place that is known only when it runs."""
    x, at = inputs[0], leave(inputs[1]) if len(inputs) == 2 else None
    if not isinstance(x, Vector) or eqn.params["slice_sizes"] != (1,):
        return None
    row = x.row.astype(jnp.float32) if x.row.dtype == jnp.bool_ else x.row
    here = lax.broadcasted_iota(jnp.int32, row.shape, 1) == at
    one = jnp.sum(jnp.where(here, row, jnp.zeros_like(row)), axis=1, keepdims=True)
    one = one > 0.5 if x.row.dtype == jnp.bool_ else one
    return Vector((1,), row=one, column=one)


def _positions(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    del inputs
    shape, dtype, along = (eqn.params[name] for name in ("shape", "dtype", "dimension"))
    count = functools.partial(lax.broadcasted_iota, dtype)
    if len(shape) == 1:
        row, column = (1, *shape), (*shape, 1)
        return Vector(shape, row=lambda: count(row, 1), column=lambda: count(column, 0))
    if len(shape) == 2:
        return Matrix(
            shape, Forms((lambda: count(shape, along), lambda: count(shape[::-1], 1 - along)))
        )
    return None


def _sums_between(eqn: JaxprEqn, inputs: list[Any]) -> Any:
    """Of logs: running sums of them below the diagonal, which no matrix unit need be asked for."""
    (x, *more), (shape, *others) = inputs, [result.shape for result in results_of(eqn)]
    derived = more or others or not isinstance(x, Vector) or shape != (*x.shape, *x.shape)
    if derived or x.shape[0] % ROWS:
        return None
    row, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    form = functools.partial(running, jnp.where(row > column, x.column, 0.0))
    return Matrix(shape, Forms((form, None)))


# Functions of ours, by name, that have a form of their own here.
NAMED: dict[str, Callable[[JaxprEqn, list[Any]], Any]] = {"sums_between": _sums_between}
FORMED: dict[str, Callable[[JaxprEqn, list[Any]], Any]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    **dict.fromkeys(REDUCTIONS, _reduce),
    "dot_general": _product,
    "transpose": _transposed,
    "iota": _positions,
    "dynamic_slice": _entry,
}
