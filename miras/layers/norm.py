"""Root-mean-square and l2 normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array, Leaf, typed
from miras.layers.param import Axes, param


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis, computed in float32 (arXiv 1910.07467).

    Args:
        shape: of the learned scale; its last dimension is the normalised one.
        axes: logical names of the scale's dimensions.
        eps: added to the mean square.
    """

    def __init__(self, shape: tuple[int, ...], axes: Axes, eps: float = 1e-6):
        self.scale = param(jnp.ones(shape, jnp.float32), axes)
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """Normalise x [..., *shape]; the result has its dtype."""
        y = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * self.scale[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + eps) * scale + bias over the last axis (1607.06450).

    Computed in float32.

    Args:
        shape: of the learned scale and bias; its last dimension is the normalised one.
        axes: logical names of their dimensions.
        eps: added to the variance.
    """

    def __init__(self, shape: tuple[int, ...], axes: Axes, eps: float = 1e-5):
        self.scale = param(jnp.ones(shape, jnp.float32), axes)
        self.bias = param(jnp.zeros(shape, jnp.float32), axes)
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """Normalise x [..., *shape]; the result has its dtype."""
        y = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}


class GroupNorm(nnx.Module):
    """RMSNorm over the channels of neighbouring heads together, with a scale for each channel.

    Args:
        groups: G, a divisor of heads.
        heads: H.
        head: width of a head.
        eps: added to the mean square.
    """

    def __init__(self, groups: int, heads: int, head: int, eps: float):
        self.norm = RMSNorm((groups, heads // groups * head), ("heads", None), eps)

    def __call__(self, x: Array) -> Array:
        """Normalise x [..., H, D]; the result has its dtype."""
        return self.norm(x.reshape(*x.shape[:-2], *self.norm.scale.shape)).reshape(x.shape)


@typed
def l2_normalise(x: Leaf, eps: float = 1e-6) -> Leaf:
    """x / ||x||_2 over the last axis, computed in float32, in the dtype of x."""
    y = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    return (y * jax.lax.rsqrt(jnp.sum(y * y, axis=-1, keepdims=True) + eps)).astype(x.dtype)
