"""Sums of logs between any two tokens, as a primitive of jax that each backend may lower by itself.

By default it is a product with a triangular matrix, which batches over rows and heads into one
product, where XLA's own cumulative sum takes a dozen operations. A TPU kernel sums in registers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from miras.array_typing import Array

sums_between_p = Primitive("sums_between")


def sums_between(x: Array) -> Array:
    """sum_{s < i <= t} x_i at [t, s], for x [C]; 0 where there are none.

    Each sum is formed on its own, never as a difference of others, so that nothing cancels.
    """
    return sums_between_p.bind(x)


def by_product(x: Array) -> Array:
    """The same in jax's own operations."""
    time = jnp.arange(x.shape[0])
    lower = (time[:, None] >= time[None, :]).astype(x.dtype)
    strictly_lower = (time[:, None] > time[None, :]).astype(x.dtype)
    return jnp.matmul(lower * x[None, :], strictly_lower, precision=jax.lax.Precision.HIGHEST)


def _shape(x: Any) -> Any:
    return jax.make_jaxpr(by_product)(x).out_avals[0]


def _derivative(primals: tuple[Array], tangents: tuple[Any]) -> tuple[Array, Array]:
    """Of the product: where it is differentiated, a TPU's matrix units are the less busy ones.

    In registers, a backward kernel of titans_lmm at d = 64 takes 37.4 bundles a token, and 35.2 by
    the product (`python -m benchmarks.tpu_schedule`; v5e, jax 0.10.2, libtpu 0.0.42).
    """
    return jax.jvp(by_product, primals, tuple(map(ad.instantiate_zeros, tangents)))


def _batched(args: tuple[Array], axes: tuple[int]) -> tuple[Array, int]:
    return jax.vmap(by_product, axes)(*args), 0


sums_between_p.def_impl(jax.jit(by_product))
sums_between_p.def_abstract_eval(_shape)
ad.primitive_jvps[sums_between_p] = _derivative
batching.primitive_batchers[sums_between_p] = _batched
mlir.register_lowering(sums_between_p, mlir.lower_fun(by_product, multiple_results=False))
