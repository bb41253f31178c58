"""Parameters with logical axis names, from which any mesh can shard a model."""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.weight_gradients import product

Axes = tuple[str | None, ...]


def param(value: Array, axes: Axes) -> nnx.Param:
    """A trained parameter; `axes` names each axis (vocab, embed, heads, mlp, layers or None).

    The names are metadata: they do not place the array on devices, so no mesh is needed.
    """
    assert value.ndim == len(axes), f"{value.shape} needs {value.ndim} axis names, not {axes}"
    return nnx.Param(value, out_sharding=axes, eager_sharding=False)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], axes: Axes, std: float) -> nnx.Param:
    """A float32 parameter from a normal distribution truncated at two standard deviations."""
    draw = jax.random.truncated_normal(rngs.params(), -2, 2, shape, jnp.float32)
    return param(std * draw, axes)


class LinearGeneral(nnx.Module):
    """x @ kernel, over the last axis, without a bias.

    Args:
        shape: kernel shape [in, *out].
        axes: logical names of the kernel's dimensions.
        rngs: stream `params`.
        start: initial standard deviation relative to fan-in scaling; 0 for zeros.
    """

    def __init__(self, shape: tuple[int, ...], axes: Axes, rngs: nnx.Rngs, start: float = 1.0):
        if start:
            self.kernel = normal(rngs, shape, axes, start * shape[0] ** -0.5)
        else:
            self.kernel = param(jnp.zeros(shape), axes)
        self.gradient_dtype: str | None = None  # that of x

    def __call__(self, x: Array) -> Array:
        """Map x [..., in] to [..., *out], in the dtype of x."""
        if self.gradient_dtype not in (None, x.dtype.name) and x.dtype != jnp.float64:
            return product(x, self.kernel[...], self.gradient_dtype)
        return jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=1)


class LowRank(nnx.Module):
    """act(x @ down) @ up in float32: a projection through a bottleneck, initially 0.

    Args:
        width: of x.
        rank: width of the bottleneck.
        shape: of the result.
        axes: logical names of the axes of the result.
        rngs: stream `params`.
        tanh: whether act is tanh, or nothing.
    """

    def __init__(
        self,
        width: int,
        rank: int,
        shape: tuple[int, ...],
        axes: Axes,
        rngs: nnx.Rngs,
        *,
        tanh: bool = False,
    ):
        self.tanh = tanh
        self.down = normal(rngs, (width, rank), ("embed", None), width**-0.5)
        self.up = param(jnp.zeros((rank, *shape)), (None, *axes))

    def __call__(self, x: Array) -> Array:
        """Map x [..., width] to [..., *shape], float32."""
        x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        low = x @ self.down[...]
        return jnp.tensordot(jnp.tanh(low) if self.tanh else low, self.up[...], axes=1)
