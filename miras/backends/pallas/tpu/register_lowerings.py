"""Mosaic's lowerings of values by their layouts in registers, see `register_layouts`.

A rule here may return `NotImplemented`: then, as for primitives without one, the equation is
lowered on arrays by `lowerings.MOSAIC`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.target import ROWS
from miras.backends.pallas.tpu.cumulative_sum import cumulative_sum
from miras.backends.pallas.tpu.lowerings import MOSAIC
from miras.backends.pallas.tpu.matmul import matmul
from miras.backends.pallas.tpu.register_layouts import (
    Layouts,
    RegisterMatrix,
    RegisterVector,
    enter,
    leave,
    map_matrices,
    map_vectors,
    registers,
    scalar,
)
from miras.backends.pallas.trace.jaxprs import (
    Evaluate,
    evaluate,
    in_avals,
    out_avals,
    source_of,
    unpack_scan_inputs,
)
from miras.backends.pallas.trace.lowerings import Lowerings
from miras.backends.pallas.trace.primitives import named
from miras.backends.pallas.trace.shared_lowerings import CALLS
from miras.optim.sums_between import sums_between_p

IN_REGISTERS = Lowerings("TPU registers", CALLS)


def evaluate_on_tpu(jaxpr: Jaxpr, constants: Sequence[Array], *args: Any) -> list[Any]:
    """The results of a jaxpr in a TPU kernel, by their layouts; `leave` makes them arrays."""
    return evaluate(lower, jaxpr, [*map(enter, constants)], *map(enter, args))


def lower(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate) -> Sequence[Any]:
    """The results of one equation."""
    found = IN_REGISTERS.get(eqn)
    if found is not None:
        results = found.rule(eqn, inputs, evaluate)
        if results is not NotImplemented:
            return results
    return [*map(enter, MOSAIC(eqn, [*map(leave, inputs)], evaluate))]


@IN_REGISTERS.register(
    *named(
        "abs add add_any and atan atan2 ceil clamp convert_element_type copy cos div eq erf "
        "erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min "
        "mul ne neg nextafter not or pow rem round rsqrt select_n sign sin sqrt square "
        "stop_gradient sub tan tanh xor"
    )
)
def elementwise(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """Elementwise operations, in the layout in which their result will be asked for."""
    shape, source = out_avals(eqn)[0].shape, source_of(eqn)

    def one(*arrays: Array) -> Array:
        with source():
            return MOSAIC(eqn, [*arrays], evaluate)[0]

    if len(shape) < 2 and any(isinstance(x, RegisterVector) for x in inputs):
        return [map_vectors(one, shape, inputs)]
    if len(shape) == 2:
        result = map_matrices(one, shape, inputs)
        was = in_avals(eqn)[0].dtype
        result.binary = eqn.primitive is lax.convert_element_type_p and was == jnp.bool_
        return [result]
    return [one(*map(leave, inputs))]


@IN_REGISTERS.register(lax.scan_p, lax.while_p, lax.cond_p)
def control_flow(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """Loops and branches: vectors go in and out as rows [1, N].

    Mosaic of jax 0.10.2 (libtpu 0.0.42) makes mistakes with carries of one dimension. This can go
    where `tests/backends/pallas/tpu` pass without it.
    """

    def on_rows(jaxpr: Any, *args: Any) -> list[Array]:
        shapes = (var.aval for var in getattr(jaxpr, "jaxpr", jaxpr).invars)
        return [*map(_row, evaluate(jaxpr, *map(_value, args, shapes)))]

    first = len(inputs)
    if eqn.primitive is lax.scan_p:  # scanned arrays have a dimension more
        constants, carry, _ = unpack_scan_inputs(eqn, inputs)
        first = len(constants) + len(carry)
    rows = [*map(_row, inputs[:first]), *map(leave, inputs[first:])]
    return [*map(_value, MOSAIC(eqn, rows, on_rows), out_avals(eqn))]


def _row(x: Any) -> Array:
    """A vector as a row, others as arrays."""
    return x.row if isinstance(x, RegisterVector) and x.shape else leave(x)


def _value(x: Any, aval: Any) -> Any:
    """The inverse."""
    is_row = len(aval.shape) == 1 and jnp.ndim(x) == 2
    return RegisterVector(aval.shape, row=x) if is_row else enter(x)


@IN_REGISTERS.register(lax.broadcast_in_dim_p)
def broadcast(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """A vector or a scalar broadcast to a vector or a matrix."""
    del evaluate
    x, *_ = inputs
    shape, at = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    if len(shape) > 2 or isinstance(x, RegisterMatrix):
        return NotImplemented
    if not isinstance(x, RegisterVector):  # a scalar outside of the vector registers
        if not shape:
            return [x]
        x = scalar(jnp.broadcast_to(x, (1, 1)))
    if len(shape) == 1:
        return [map_vectors(lambda x: x, shape, [x])]
    return [x.as_matrix(1 if at == (0,) else 0, shape)]


@IN_REGISTERS.register(lax.reshape_p, lax.squeeze_p)
def reshape(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """Between a vector and a matrix of one row or column."""
    del evaluate
    x, *_ = inputs
    shape = out_avals(eqn)[0].shape
    if isinstance(x, RegisterVector):
        if len(shape) == 2 and 1 in shape:
            return [x.as_matrix(0 if shape[0] == 1 else 1, shape)]
        if shape == x.shape:
            return [x]
        if (1,) in (shape, x.shape) and len(shape) < 2:
            return [RegisterVector(shape, row=lambda: x.row, column=lambda: x.column)]
        return NotImplemented
    if not isinstance(x, RegisterMatrix) or 1 not in x.shape or len(shape) > 1:
        return NotImplemented
    side = 0 if x.shape[0] == 1 else 1
    native = {at: lambda at=at: x.layouts.get(x.side ^ side ^ at) for at in (0, 1)}
    native = {at: maker for at, maker in native.items() if x.layouts.has(x.side ^ side ^ at)}
    return [RegisterVector(shape, row=native.get(0), column=native.get(1))]


def _reduction(reduce: Callable[..., Array]):
    """The rule of a reduction to a scalar or to a row or column, whichever it gives."""

    def rule(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
        del evaluate
        (x,), axes = inputs, eqn.params["axes"]
        reduced = functools.partial(reduce, keepdims=True)
        if isinstance(x, RegisterVector):
            side = min(x.native)
            return [scalar(reduced(x.get(side), axis=1 - side))]
        if not isinstance(x, RegisterMatrix):
            return NotImplemented
        side = x.side if x.layouts.has(x.side) else 1 - x.side
        array, flip = x.layouts.get(side), side != x.side
        if axes == (0, 1):
            return [scalar(reduced(array, axis=(0, 1)))]
        (axis,) = axes
        axis ^= flip
        one = array if array.shape[axis] == 1 else reduced(array, axis=axis)
        return [RegisterVector(out_avals(eqn)[0].shape, **{("row", "column")[axis]: one})]

    return rule


IN_REGISTERS.register(lax.reduce_sum_p)(_reduction(jnp.sum))
IN_REGISTERS.register(lax.reduce_max_p)(_reduction(jnp.max))
IN_REGISTERS.register(lax.reduce_min_p)(_reduction(jnp.min))


@IN_REGISTERS.register(lax.dot_general_p)
def dot_general(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """Products with vectors as sums, exact in their dtype; of matrices, transposed or not."""
    del evaluate
    (over, batch) = eqn.params["dimension_numbers"]
    if batch[0] or len(over[0]) > 1:
        return NotImplemented
    x, y = inputs
    shape, dtype = out_avals(eqn)[0].shape, out_avals(eqn)[0].dtype
    kinds = tuple(type(x) for x in inputs)
    if kinds == (RegisterVector, RegisterVector):
        return [_of_vectors(x, y, shape, summed=bool(over[0]))]
    if not over[0]:
        return NotImplemented
    if kinds in ((RegisterVector, RegisterMatrix), (RegisterMatrix, RegisterVector)):
        vector, matrix, (axis,) = (x, y, over[1]) if kinds[0] is RegisterVector else (y, x, over[0])
        side = matrix.side if matrix.layouts.has(matrix.side) else 1 - matrix.side
        axis ^= side != matrix.side
        both = matrix.layouts.get(side).astype(dtype) * vector.get(1 - axis)
        total = jnp.sum(both, axis=axis, keepdims=True)
        return [RegisterVector(shape, **{("row", "column")[axis]: total})]
    if kinds != (RegisterMatrix, RegisterMatrix):
        return NotImplemented
    source = source_of(eqn)

    def product(first: RegisterMatrix, i: int, second: RegisterMatrix, j: int) -> Array:
        """Sum over dimension i of the first and j of the second."""
        binary = first.binary, second.binary
        with source():
            one, i = _cheaper(first, i, 1)
            other, j = _cheaper(second, j, 0)
            return matmul(one, other, (i, j), eqn.params["precision"], binary, dtype)

    (i,), (j,) = over
    makers = functools.partial(product, x, i, y, j), functools.partial(product, y, j, x, i)
    return [RegisterMatrix(shape, Layouts(makers))]


def _of_vectors(
    x: RegisterVector, y: RegisterVector, shape: tuple[int, ...], *, summed: bool
) -> Any:
    def times(a: Array, b: Array) -> Array:
        return a * b

    if summed:
        both = map_vectors(times, x.shape, [x, y])
        side = min(both.native)
        return scalar(jnp.sum(both.get(side), axis=1 - side, keepdims=True))
    if len(shape) == 2:
        makers = (lambda: x.column * y.row), (lambda: y.column * x.row)
        return RegisterMatrix(shape, Layouts(makers))
    return map_vectors(times, shape, [x, y])


def _cheaper(x: RegisterMatrix, axis: int, preferred: int) -> tuple[Array, int]:
    """A matrix or its transpose, with the dimension that is summed over; `preferred` if equal."""

    def cost(turn: int):
        shape = x.shape[::-1] if turn else x.shape
        return not x.layouts.has(x.side ^ turn), registers(shape), axis ^ turn != preferred

    turn = min((0, 1), key=cost)
    return x.layouts.get(x.side ^ turn), axis ^ turn


@IN_REGISTERS.register(lax.concatenate_p)
def concatenate(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """Matrices one after another, in a layout that all of them have."""
    del evaluate
    if not all(isinstance(x, RegisterMatrix) for x in inputs):
        return NotImplemented
    source = source_of(eqn)

    def of(side: int) -> Array:
        with source():
            parts = [x.layouts.get(x.side ^ side) for x in inputs]
            return jnp.concatenate(parts, axis=eqn.params["dimension"] ^ side)

    sides = [s for s in (0, 1) if all(x.layouts.has(x.side ^ s) for x in inputs)] or [0]
    makers = [functools.partial(of, side) if side in sides else None for side in (0, 1)]
    return [RegisterMatrix(out_avals(eqn)[0].shape, Layouts(makers))]


@IN_REGISTERS.register(lax.transpose_p)
def transpose(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """A matrix whose layouts change sides: nothing is moved."""
    del evaluate
    (x,) = inputs
    if isinstance(x, RegisterVector):
        return [x]
    if not isinstance(x, RegisterMatrix):
        return NotImplemented
    return [x.transpose if eqn.params["permutation"] == (1, 0) else x]


@IN_REGISTERS.register(lax.dynamic_slice_p)
def entry(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """One entry of a vector, at a place that is known only when the kernel runs."""
    del evaluate
    x, at = inputs[0], leave(inputs[1]) if len(inputs) == 2 else None
    if not isinstance(x, RegisterVector) or eqn.params["slice_sizes"] != (1,):
        return NotImplemented
    row = x.row.astype(jnp.float32) if x.row.dtype == jnp.bool_ else x.row
    here = lax.broadcasted_iota(jnp.int32, row.shape, 1) == at
    one = jnp.sum(jnp.where(here, row, jnp.zeros_like(row)), axis=1, keepdims=True)
    one = one > 0.5 if x.row.dtype == jnp.bool_ else one
    return [RegisterVector((1,), row=one, column=one)]


@IN_REGISTERS.register(lax.iota_p)
def iota(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """Positions, counted along lanes or rows."""
    del inputs, evaluate
    shape, dtype, along = (eqn.params[name] for name in ("shape", "dtype", "dimension"))
    count = functools.partial(lax.broadcasted_iota, dtype)
    if len(shape) == 1:
        row, column = (1, *shape), (*shape, 1)
        return [RegisterVector(shape, row=lambda: count(row, 1), column=lambda: count(column, 0))]
    if len(shape) == 2:
        makers = (lambda: count(shape, along), lambda: count(shape[::-1], 1 - along))
        return [RegisterMatrix(shape, Layouts(makers))]
    return NotImplemented


@IN_REGISTERS.register(sums_between_p)
def sums_between(eqn: JaxprEqn, inputs: list[Any], evaluate: Evaluate):
    """Cumulative sums in registers, of the logs below the diagonal: the matrix units stay free."""
    (x,), (shape,) = inputs, [aval.shape for aval in out_avals(eqn)]
    if not isinstance(x, RegisterVector) or shape[0] % ROWS:
        return CALLS(eqn, inputs, evaluate)
    source = source_of(eqn)

    def make() -> Array:
        with source():
            row, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
            return cumulative_sum(jnp.where(row > column, x.column, 0.0))

    return [RegisterMatrix(shape, Layouts((make, None)))]
