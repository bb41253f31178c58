"""Activations between a memory's layers.

The inner gradient takes their derivative and training the derivative of that, so GELU's, of which
most presets are made, are written out here with what they share.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from miras.typing import Array

Activation = Literal["relu", "gelu", "gelu_exact", "silu", "tanh", "identity"]

C0 = (2 / math.pi) ** 0.5
C1 = 0.044715 * C0


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """GELU in its tanh form, x (1 + tanh u) / 2 with u = x (c0 + c1 x^2) (1606.08415)."""
    t, _ = _tanh(x)
    return x * (0.5 + 0.5 * t)


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return gelu(x), slope(x) * dx


@jax.custom_jvp
def slope(x: Array) -> Array:
    """gelu'(x) = (1 + t) / 2 + x (1 - t^2) u' / 2."""
    t, p = _tanh(x)
    return (0.5 + 0.5 * t) + (0.5 * x) * ((1 - t * t) * (C0 + 3 * p))


@slope.defjvp
def _slope_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return slope(x), _curvature(x) * dx


def _curvature(x: Array) -> Array:
    """gelu''(x) = (1 - t^2) (u' + x u'' / 2 - x t u'^2)."""
    t, p = _tanh(x)
    first = C0 + 3 * p
    return (1 - t * t) * (C0 + 6 * p - (x * t) * (first * first))


def _tanh(x: Array) -> tuple[Array, Array]:
    """T = tanh(u) and c1 x^2."""
    p = C1 * (x * x)
    return jnp.tanh(x * (C0 + p)), p


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": gelu,
    "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "identity": lambda x: x,
}
