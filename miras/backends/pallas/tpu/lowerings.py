"""Mosaic's lowerings, of arrays: what the compiler of TPU kernels has, and rules for what it lacks.

`register_lowerings` has further rules for values whose layout in registers is chosen here.
"""

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.tpu.vmem_scan import scan_in_vmem
from miras.backends.pallas.trace.jaxprs import Evaluate
from miras.backends.pallas.trace.lowerings import Lowerings
from miras.backends.pallas.trace.primitives import named
from miras.backends.pallas.trace.shared_lowerings import (
    SHARED,
    adds_to_columns,
    gathers_columns,
    slices_one_entry,
)

MOSAIC = Lowerings("TPU", SHARED)

# What Mosaic of jax 0.10.2 lowers as it is. Later versions may have more.
MOSAIC.native(
    *named(
        "abs add add_any and argmax argmin atan2 bitcast_convert_type ceil clamp concatenate "
        "convert_element_type copy cos div eq erf erf_inv exp exp2 floor ge gt integer_pow iota "
        "is_finite le log log1p logistic lt max min mul ne neg nextafter not or population_count "
        "one_minus_square reduce_and reduce_max reduce_min reduce_or reduce_sum rem reshard round "
        "rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin slice split "
        "sqrt square squeeze stack stop_gradient sub tan tanh tile unstack xor"
    )
)
MOSAIC.register(lax.scan_p)(scan_in_vmem)


@MOSAIC.register(lax.pad_p)
def pad(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """Negative padding, which slices' derivatives have, as a slice."""
    del evaluate
    x, value = inputs
    config = eqn.params["padding_config"]
    start = [max(-low, 0) for low, _, _ in config]
    stop = [n - max(-high, 0) for n, (_, high, _) in zip(x.shape, config)]
    if any(start) or tuple(stop) != x.shape:
        x = lax.slice(x, start, stop)
    positive = [(max(low, 0), max(high, 0), interior) for low, high, interior in config]
    return [lax.pad(x, value, positive) if any(map(any, positive)) else x]


@MOSAIC.register(lax.pow_p)
def power(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x^y for x >= 0 as exp(y log x)."""
    del eqn, evaluate
    x, y = inputs
    zero = x <= 0.0
    safe = jnp.exp(y * jnp.log(jnp.where(zero, 1.0, x)))
    return [jnp.where(zero, jnp.where(y == 0, 1.0, 0.0), safe).astype(x.dtype)]


@MOSAIC.register(lax.expm1_p)
def expm1(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """exp(x) - 1 near 0 as 2 t / (1 - t) with t = tanh(x / 2)."""
    del eqn, evaluate
    (x,) = inputs
    t = jnp.tanh(jnp.where(jnp.abs(x) < 0.5, x, 0.0) / 2)
    return [jnp.where(jnp.abs(x) < 0.5, 2 * t / (1 - t), jnp.exp(x) - 1)]


@MOSAIC.register(lax.atan_p)
def arctangent(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """Of x as of x / 1."""
    del eqn, evaluate
    return [lax.atan2(inputs[0], jnp.ones_like(inputs[0]))]


@MOSAIC.register(lax.dot_general_p)
def dot_general(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """Products that are none of two matrices, as sums: batched, or over several dimensions."""
    del evaluate
    (over, batch) = eqn.params["dimension_numbers"]
    free = [
        [i for i in range(a.ndim) if i not in over[side] and i not in batch[side]]
        for side, a in enumerate(inputs)
    ]
    contracted = [inputs[0].shape[i] for i in over[0]]
    x, y = (
        lax.transpose(a, (*batch[side], *free[side], *over[side])) for side, a in enumerate(inputs)
    )  # [batch, free, over] of each
    lead = len(batch[0])
    x = x.reshape(*x.shape[: lead + len(free[0])], *[1] * len(free[1]), *contracted)
    y = y.reshape(*y.shape[:lead], *[1] * len(free[0]), *y.shape[lead:])
    z = x * y
    axes = tuple(range(z.ndim - len(contracted), z.ndim))
    return [jnp.sum(z, axis=axes) if axes else z]


@MOSAIC.register(lax.dynamic_slice_p, supports=slices_one_entry)
def dynamic_slice(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x[t] for a t that is known only when the kernel runs, as a masked sum."""
    del evaluate
    x, *at = inputs
    sizes = eqn.params["slice_sizes"]
    for axis, (start, size) in enumerate(zip(at, sizes)):
        if size != x.shape[axis]:
            here = lax.broadcasted_iota(jnp.int32, x.shape, axis) == start
            x = jnp.sum(jnp.where(here, x, jnp.zeros_like(x)), axis=axis, keepdims=True)
    return [x]


@MOSAIC.register(lax.gather_p, supports=gathers_columns)
def gather(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x[:, index] as a product with columns of the identity."""
    del eqn, evaluate
    x, index = inputs
    chosen = _one_hot(index, x.shape[1], x.dtype)
    return [jnp.matmul(x, chosen, precision=lax.Precision.HIGHEST)]


@MOSAIC.register(lax.scatter_add_p, supports=adds_to_columns)
def scatter_add(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x.at[:, index].add(y), the derivative of `gather`."""
    del eqn, evaluate
    x, index, y = inputs
    chosen = _one_hot(index, x.shape[1], x.dtype)
    rows = (((1,), (1,)), ((), ()))
    return [x + lax.dot_general(y, chosen, rows, precision=lax.Precision.HIGHEST)]


def _one_hot(index: Array, size: int, dtype) -> Array:
    index = index.reshape(1, -1)
    return (lax.broadcasted_iota(jnp.int32, (size, index.shape[1]), 0) == index).astype(dtype)


@MOSAIC.register(lax.reshape_p, lax.broadcast_in_dim_p, lax.transpose_p)
def change_shape(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A change of shape, of truth values as of numbers."""
    del evaluate
    x, *sizes = inputs
    bind = lambda x: eqn.primitive.bind(x, *sizes, **eqn.params)  # noqa: E731
    return [bind(x.astype(jnp.float32)) > 0.5 if x.dtype == jnp.bool_ else bind(x)]
