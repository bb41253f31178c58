"""MIMO: several keys, values and queries of a token, made of one value and summed to one output.

Mamba-3 (2603.15569), as its official code computes it. Of the value x_t, the output gate z_t and R
keys and queries of a head, with learned u_r, z'_r and o_r [D] and element-wise products,

    v_{t,r} = u_r * x_t             W_t: a step along every k_{t,r}^T v_{t,r}
    y_{t,r} = q_{t,r} W_t           (plus the skip, D v_{t,r})
    o_t     = sum_r o_r * y_{t,r} * silu(z'_r * z_t)

All R reads are of the memory after all R writes of the token.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import param
from miras.layers.weight_gradients import spread


class MimoProjections(nnx.Module):
    """The maps from one value to R, and from R reads to one output.

    At the start, u_r = o_r = 1 / R and z'_r = 1.

    Args:
        rank: R.
        heads: H.
        head: D.
        gate: whether there is an output gate z_t.
    """

    def __init__(self, rank: int, heads: int, head: int, *, gate: bool):
        shape, axes = (rank, heads, head), (None, "heads", None)
        self.value = param(jnp.full(shape, 1 / rank), axes)
        self.output = param(jnp.full(shape, 1 / rank), axes)
        self.gate = param(jnp.ones(shape), axes) if gate else None

    def values(self, x: Array) -> Array:
        """The values [B, T, H, R, D] of x [B, T, H, D]."""
        x = x[:, :, None]
        return jnp.moveaxis(x * spread(self.value[...], x), 2, 3)

    def combined(self, y: Array, z: Array | None) -> Array:
        """The output [B, T, H, D] of reads [B, T, R, H, D] and the gate z [B, T, H, D], or None."""
        if z is not None:
            assert self.gate is not None
            z = z[:, :, None]
            y = y * jax.nn.silu(z * spread(self.gate[...], z))
        return jnp.sum(y * spread(self.output[...], y), axis=2)
