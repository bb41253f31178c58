"""Parameters with logical axis names, so that any mesh can be laid over a model later."""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.typing import Array

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
    """

    def __init__(self, shape: tuple[int, ...], axes: Axes, rngs: nnx.Rngs):
        self.kernel = normal(rngs, shape, axes, shape[0] ** -0.5)

    def __call__(self, x: Array) -> Array:
        """[..., in] to [..., *out], in the dtype of x."""
        return jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=1)
