"""ValueResidual: values of a layer, mixed with those of the first layer."""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import LowRank, param


class ValueResidual(nnx.Module):
    """v_t + s_t * (v^1_t - v_t), where v^1 are the values of the model's first layer.

    Value residual learning (2410.17897), with a share s_t = sigmoid(b + x_t A B) per channel as in
    RWKV-7 (2503.14456, eq. 7). It changes nothing in the first layer. s_t starts at 1/2.

    Args:
        width: of the tokens.
        rank: of the projection of s_t.
        heads: heads of values.
        head: width of a head of values.
        rngs: stream `params`.
    """

    def __init__(self, width: int, rank: int, heads: int, head: int, rngs: nnx.Rngs):
        shape, axes = (heads, head), ("heads", None)
        self.share = LowRank(width, rank, shape, axes, rngs)
        self.bias = param(jnp.zeros(shape), axes)

    def __call__(self, v: Array, first: Array, x: Array) -> Array:
        """Mix values v [B, T, H, D] with `first`, of the same shape, for tokens x [B, T, width]."""
        share = jax.nn.sigmoid(self.share(x) + self.bias[...]).astype(v.dtype)
        return v + share * (first.astype(v.dtype) - v)
