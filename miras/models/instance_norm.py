"""InstanceNorm: reversible instance normalisation of series."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import param

EPSILON = 1e-5


class Statistics(NamedTuple):
    """Of a window: its mean and its standard deviation, [B, 1] each."""

    mean: Array
    deviation: Array


class InstanceNorm(nnx.Module):
    """RevIN (Kim et al., ICLR 2022, equations 1 and 2): each window is normalised and restored.

    With the mean and the variance of the values x_1 .. x_L of a window,

        m = sum_t x_t / L,     v = sum_t (x_t - m)^2 / L,     s = sqrt(v + eps)
        z_t = gamma (x_t - m) / s + beta
        x' = s (z' - beta) / (gamma + eps^2) + m              (of a forecast z')

    where gamma and beta of each series are learned, or 1 and 0; eps = 1e-5, and eps^2 is that of
    the authors' code. No gradient flows through m and s, as there.

    Args:
        series: number of series with a scale and a shift of their own; None for neither.
    """

    def __init__(self, series: int | None = None):
        self.affine = series is not None
        if series is not None:
            self.scale = param(jnp.ones(series), (None,))
            self.shift = param(jnp.zeros(series), (None,))

    def __call__(self, x: Array, series: Array | None = None) -> tuple[Array, Statistics]:
        """Normalise windows x [B, L]; `series` [B] int tells which series each is of."""
        mean = jnp.mean(x, axis=1, keepdims=True)
        deviation = jnp.sqrt(jnp.var(x, axis=1, keepdims=True) + EPSILON)
        found = Statistics(jax.lax.stop_gradient(mean), jax.lax.stop_gradient(deviation))
        z = (x - found.mean) / found.deviation
        if self.affine:
            z = z * self.scale[...][series][:, None] + self.shift[...][series][:, None]
        return z, found

    def reverse(self, z: Array, statistics: Statistics, series: Array | None = None) -> Array:
        """Restore forecasts z [B, H] of windows with these statistics."""
        if self.affine:
            scale = self.scale[...][series][:, None] + EPSILON**2
            z = (z - self.shift[...][series][:, None]) / scale
        return z * statistics.deviation + statistics.mean
