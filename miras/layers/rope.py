"""Rotary position embedding, exact at any position."""

import functools

import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array, Floats, Positions, typed
from miras.config import require

_BASE, _DIGITS = 64, 5  # positions below 2^30


@typed
def rotate(x: Floats, position: Positions, base: float, share: float = 1.0) -> Floats:
    """Rotate pairs of channels by angles that grow with the position (RoPE, arXiv 2104.09864).

    In float32, position times frequency is wrong by a tenth of a radian after a million tokens. So
    the rotation is a product of one rotation per base-64 digit of the position, from tables
    computed in float64. It is exact up to rounding at any position.

    Args:
        x: [B, T, ..., D], D even, such as [B, T, H, D].
        position: [B, T], in [0, 2^30).
        base: the largest wavelength over 2 pi.
        share: of the channels, from the first, that are rotated.

    Returns:
        The rotated x, so that q_t . k_s depends on positions only through t - s.
    """
    if share != 1:
        whole = round(share * x.shape[-1])
        turned = rotate(x[..., :whole], position, base)
        return jnp.concatenate([turned, x[..., whole:]], axis=-1)
    half = _pairs(x)
    dtype = jnp.promote_types(jnp.float32, x.dtype)
    cos, sin = (table.astype(dtype) for table in _tables(half, base))
    c, s = jnp.ones((), dtype), jnp.zeros((), dtype)
    for n in range(_DIGITS):
        digit = position // _BASE**n % _BASE
        dc, ds = cos[n][digit], sin[n][digit]
        c, s = c * dc - s * ds, s * dc + c * ds
    ones = [1] * (x.ndim - 3)
    return _turned(x, *(y.reshape(*y.shape[:2], *ones, half) for y in (c, s)))


@typed
def turn(x: Floats, angle: Floats) -> Floats:
    """Rotate pairs of channels by given angles.

    Args:
        x: [B, T, H, D], or [B, T, H, R, D], D even; channel i is paired with D / 2 + i.
        angle: [B, T, H, D / 2].
    """
    _pairs(x)
    angle = angle if x.ndim == angle.ndim else angle[..., None, :]
    return _turned(x, jnp.cos(angle), jnp.sin(angle))


def _turned(x: Array, c: Array, s: Array) -> Array:
    """x rotated by angles of cosine c and sine s, which broadcast against half of its channels."""
    half = x.shape[-1] // 2
    c, s = jnp.asarray(c, x.dtype), jnp.asarray(s, x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * c - second * s, second * c + first * s], axis=-1)


def _pairs(x: Array) -> int:
    """The number of pairs of channels."""
    half = x.shape[-1] // 2
    require(2 * half == x.shape[-1], f"RoPE needs an even head width, not {x.shape[-1]}.")
    return half


@functools.cache
def _angles(half: int, base: float) -> np.ndarray:
    """The angles of each digit, [digits, 64, half], float64."""
    frequency = base ** (-np.arange(half) / half)
    return _BASE ** np.arange(_DIGITS)[:, None, None] * np.arange(_BASE)[:, None] * frequency


def _tables(half: int, base: float) -> tuple[Array, Array]:
    angles = _angles(half, base)
    return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))
