"""Rotary position embedding."""

import jax.numpy as jnp

from miras.config import require
from miras.typing import Array


def rotate(x: Array, position: Array, base: float) -> Array:
    """Rotate pairs of channels by angles that grow with the position (RoPE, arXiv 2104.09864).

    Args:
        x: [B, T, H, D], D even.
        position: [B, T].
        base: the largest wavelength over 2 pi.

    Returns:
        As x, so that q_t . k_s depends on positions through t - s only.
    """
    half = x.shape[-1] // 2
    require(2 * half == x.shape[-1], f"RoPE needs an even head width, not {x.shape[-1]}.")
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position[:, :, None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
