"""A bias with two gates."""

import dataclasses

import jax.numpy as jnp

from miras.bias import Bias, register
from miras.parts.formula import BiasFormula
from miras.parts.gate import Gate


@register("asymmetric")
@dataclasses.dataclass(frozen=True)
class Asymmetric(Bias):
    """loss = scale^2 sum_i w_i log cosh(r_i / scale), w_i = 1 + tilt tanh(r_i / scale) held.

    The residual scale (1 + tilt tanh(r / scale)) tanh(r / scale) weighs errors above the value
    more than those below it.

    Attributes:
        scale: where errors begin to count less, where the gate starts; > 0.
        tilt: how much more errors above count, where the gate starts; in (0, 1).
    """

    scale: float = 1.0
    tilt: float = 0.3

    def gates(self):
        """scale_t > 0 and tilt_t in (0, 1)."""
        return (
            Gate("scale", self.scale, "positive", True),
            Gate("tilt", self.tilt, "bounded", True, upper=1.0, symbol=r"\xi"),
        )

    def loss(self, pred, target, gates):
        """The integral of the residual, [C]."""
        scale, tilt = gates["scale"][:, None], gates["tilt"][:, None]
        x = (pred - target) / scale
        size = jnp.abs(x)
        log_cosh = size + jnp.log1p(jnp.exp(-2 * size)) - jnp.log(2.0)
        return jnp.sum(scale**2 * (log_cosh + tilt * (x - jnp.tanh(x))), axis=-1)

    def residual(self, pred, target, gates):
        """d loss / d pred, [C, dv]."""
        scale, tilt = gates["scale"][:, None], gates["tilt"][:, None]
        slope = jnp.tanh((pred - target) / scale)
        return scale * slope * (1 + tilt * slope)

    def formula(self, gates):
        """The residual."""
        scale, tilt = gates["scale"], gates["tilt"]
        return BiasFormula(
            lambda r: rf"{scale} \tanh({r} / {scale}) \odot (1 + {tilt} \tanh({r} / {scale}))"
        )
