"""Cumulative sums of tokens' rows, as a primitive of jax that each backend may lower by itself.

By default it is a product with a triangular matrix, which batches over rows and heads into one
product, where XLA's own cumulative sum takes a dozen operations. A TPU kernel sums in registers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from miras.array_typing import Array

cumulative_sum_p = Primitive("cumulative_sum")


def cumulative_sum(x: Array) -> Array:
    """y_t = sum_{i <= t} x_i of rows x [C, D]; each sum on its own, none a difference of others."""
    return cumulative_sum_p.bind(x)


def by_product(x: Array) -> Array:
    """The same in jax's own operations."""
    return jnp.matmul(_lower(x), x, precision=jax.lax.Precision.HIGHEST)


def _derivative(primals: tuple[Array], tangents: tuple[Any]) -> tuple[Array, Array]:
    """Of the product: where it is differentiated, a TPU's matrix units are the less busy ones.

    In registers, a backward kernel of titans_lmm at d = 64 takes 37.4 bundles a token, and 35.2 by
    the product (`python -m benchmarks.tpu_schedule`; v5e, jax 0.10.2, libtpu 0.0.42).
    """
    return jax.jvp(by_product, primals, tuple(map(ad.instantiate_zeros, tangents)))


def _lower(x: Array) -> Array:
    time = jnp.arange(x.shape[0])
    return (time[:, None] >= time[None, :]).astype(x.dtype)


def _batched(args: tuple[Array], axes: tuple[int]) -> tuple[Array, int]:
    return jax.vmap(by_product, axes)(*args), 0


cumulative_sum_p.def_impl(jax.jit(by_product))
cumulative_sum_p.def_abstract_eval(lambda x: x)
ad.primitive_jvps[cumulative_sum_p] = _derivative
batching.primitive_batchers[cumulative_sum_p] = _batched
mlir.register_lowering(cumulative_sum_p, mlir.lower_fun(by_product, multiple_results=False))
