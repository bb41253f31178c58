"""Activations between a memory's layers.

The inner gradient takes their derivative and training the derivative of that. GELU's, of which most
presets are made, are written out here with what they share: left to autodiff they cost twice that.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.parts.formula import Line

Activation = Literal["relu", "gelu", "gelu_exact", "silu", "tanh", "identity"]

C0 = (2 / math.pi) ** 0.5
C1 = 0.044715 * C0


def with_slopes(
    f: Callable[[Array], Array], first: Callable[[Array], Array], second: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    """An elementwise f with its first two derivatives as given."""
    slope = jax.custom_jvp(first)
    slope.defjvp(lambda x, dx: (slope(*x), second(*x) * dx[0]))
    value = jax.custom_jvp(f)
    value.defjvp(lambda x, dx: (value(*x), slope(*x) * dx[0]))
    return value


def _gelu(x: Array) -> Array:
    """GELU in its tanh form, x (1 + t) / 2, t = tanh u, u = x (c0 + c1 x^2) (1606.08415)."""
    t, _ = _tanh(x)
    return x * (0.5 + 0.5 * t)


def _gelu_slope(x: Array) -> Array:
    """(1 + t) / 2 + x (1 + t) / 2 (1 - t) u', the second term with GELU itself in it."""
    t, p = _tanh(x)
    half = 0.5 + 0.5 * t
    return half + (x * half) * ((1 - t) * (C0 + 3 * p))


def _gelu_curvature(x: Array) -> Array:
    """(1 - t^2) (u' + x u'' / 2 - x t u'^2)."""
    t, p = _tanh(x)
    first = C0 + 3 * p
    return (1 - t * t) * (C0 + 6 * p - (x * t) * (first * first))


def _tanh(x: Array) -> tuple[Array, Array]:
    """The pair of t = tanh u and c1 x^2."""
    p = C1 * (x * x)
    return jnp.tanh(x * (C0 + p)), p


def _gelu_exact(x: Array) -> Array:
    """GELU, x Phi(x) with the normal distribution's Phi."""
    return x * _phi(x)


def _gelu_exact_slope(x: Array) -> Array:
    """Phi(x) + x Phi'(x)."""
    return _phi(x) + x * _density(x)


def _gelu_exact_curvature(x: Array) -> Array:
    """Phi'(x) (2 - x^2)."""
    return _density(x) * (2 - x * x)


def _phi(x: Array) -> Array:
    return 0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)


def _density(x: Array) -> Array:
    return jnp.exp(-0.5 * (x * x)) * (2 * math.pi) ** -0.5


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": with_slopes(_gelu, _gelu_slope, _gelu_curvature),
    "gelu_exact": with_slopes(_gelu_exact, _gelu_exact_slope, _gelu_exact_curvature),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "identity": lambda x: x,
}

NAMES: dict[Activation, str] = {  # as papers write them, in LaTeX
    "relu": r"\mathrm{ReLU}",
    "gelu": r"\mathrm{GELU}",
    "gelu_exact": r"\mathrm{GELU}",
    "silu": r"\mathrm{SiLU}",
    "tanh": r"\tanh",
    "identity": "",
}


def where(name: Activation) -> tuple[Line, ...]:
    """What a formula with the activation says of it."""
    forms = {
        "gelu": r"\frac{z}{2} \odot (1 + \tanh(\sqrt{2/\pi} (z + 0.044715 z^3)))",
        "gelu_exact": r"z \odot \Phi(z)",
    }
    if name not in forms:
        return ()
    told = "Phi of the normal distribution" if name == "gelu_exact" else "its tanh form"
    return (Line(r"\mathrm{GELU}(z)", forms[name], when=told),)
