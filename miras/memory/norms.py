"""Norms of a memory's output, without learned parameters.

The inner gradient takes a norm's derivative and training that of the derivative again, so it is
written out here in the form that costs least.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.parts.formula import Line, number

Norm = Literal["layer", "rms"]


def normalise(z: Array, norm: Norm | None, eps: float) -> Array:
    """LayerNorm or RMSNorm over the last axis; z itself for None.

    Args:
        z: [..., D].
        norm: "layer" takes the mean out.
        eps: added to the variance or the mean square.
    """
    return z if norm is None else _scaled(norm, eps, z)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _scaled(norm: Norm, eps: float, z: Array) -> tuple[Array, Array]:
    """(x, r): x = r (z - mean z), or r z; r = 1 / sqrt(mean((x / r)^2) + eps)."""
    z = _centred(norm, z)
    r = jax.lax.rsqrt(_mean(z * z) + eps)
    return r * z, r


@_scaled.defjvp
def _scaled_jvp(norm: Norm, eps: float, primals, tangents):
    """Dx = r (dz - mean dz - x m) and dr = -r^2 m, with m = mean(x dz)."""
    (z,), (dz,) = primals, tangents
    x, r = _scaled(norm, eps, z)
    m = _mean(x * dz)
    return (x, r), (r * (_centred(norm, dz) - x * m), -r * r * m)


def _centred(norm: Norm, z: Array) -> Array:
    return z - _mean(z) if norm == "layer" else z


def _mean(z: Array) -> Array:
    return jnp.sum(z, axis=-1, keepdims=True) * (1 / z.shape[-1])


def where(norm: Norm | None, eps: float) -> tuple[Line, ...]:
    """What a formula with the norm says of it."""
    small = number(eps)
    if norm == "layer":
        below = rf"\sqrt{{\mathrm{{var}}(z) + {small}}}"
        return (Line(r"\mathrm{LN}(z)", rf"\frac{{z - \mathrm{{mean}}(z)}}{{{below}}}"),)
    if norm == "rms":
        below = rf"\sqrt{{\mathrm{{mean}}(z^2) + {small}}}"
        return (Line(r"\mathrm{RMSNorm}(z)", rf"\frac{{z}}{{{below}}}"),)
    return ()


def normed(norm: Norm | None, z: str) -> str:
    """LaTeX of `normalise`, from that of z."""
    names = {"layer": r"\mathrm{LN}", "rms": r"\mathrm{RMSNorm}"}
    return z if norm is None else f"{names[norm]}({z})"
