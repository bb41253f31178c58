"""Parameters with logical axis names, so that any mesh can be laid over a model later."""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array

Axes = tuple[str | None, ...]


def param(value: Array, axes: Axes) -> nnx.Param:
    """A trained array; `axes` names each dimension (vocab, embed, heads, mlp, layers or None).

    The names are metadata: nothing is placed on devices here, so no mesh need be in context.
    """
    assert value.ndim == len(axes), f"{value.shape} needs {value.ndim} axis names, not {axes}"
    return nnx.Param(value, out_sharding=axes, eager_sharding=False)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], axes: Axes, std: float) -> nnx.Param:
    """A float32 parameter drawn from a normal truncated at two standard deviations."""
    draw = jax.random.truncated_normal(rngs.params(), -2, 2, shape, jnp.float32)
    return param(std * draw, axes)


class Linear(nnx.Module):
    """x @ kernel, over the last axis, without a bias.

    Args:
        shape: kernel shape [in, *out].
        axes: logical names of the kernel's dimensions.
        rngs: stream `params`.
        start: standard deviation over that of a fan-in scaled kernel; 0 for zeros.
    """

    def __init__(self, shape: tuple[int, ...], axes: Axes, rngs: nnx.Rngs, start: float = 1.0):
        if start:
            self.kernel = normal(rngs, shape, axes, start * shape[0] ** -0.5)
        else:
            self.kernel = param(jnp.zeros(shape), axes)

    def __call__(self, x: Array) -> Array:
        """[..., in] to [..., *out], in the dtype of x."""
        return jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=1)


class LowRank(nnx.Module):
    """x @ down @ up, in float32: projections to many channels through a bottleneck.

    `up` starts at 0, so that what is added to the result is where it starts.

    Args:
        width: of x.
        rank: of the bottleneck.
        shape: of the result.
        axes: its logical names.
        rngs: stream `params`.
    """

    def __init__(self, width: int, rank: int, shape: tuple[int, ...], axes: Axes, rngs: nnx.Rngs):
        self.down = normal(rngs, (width, rank), ("embed", None), width**-0.5)
        self.up = param(jnp.zeros((rank, *shape)), (None, *axes))

    def __call__(self, x: Array) -> Array:
        """[..., width] to [..., *shape], float32."""
        x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        return jnp.tensordot(x @ self.down[...], self.up[...], axes=1)
