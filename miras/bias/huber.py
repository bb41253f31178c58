"""Huber biases: squared error for small residuals, bounded influence for large ones."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp

from miras.array_typing import Array
from miras.bias.base import Bias, register
from miras.config import require
from miras.parts.formula import BiasFormula
from miras.parts.gate import Gate
from miras.parts.norms import direction, norm


@register("huber")
@dataclasses.dataclass(frozen=True)
class Huber(Bias):
    """Huber loss with a threshold delta_t per token; MIRAS (2504.13173), equations 14-16.

    With r = pred - v, the residual is, by variant:

    - "coordinate" (14): clip(r, -delta, delta), each coordinate on its own;
    - "norm" (15): r where ||r||_2 <= delta, else delta r / ||r||_2;
    - "mixture" (16, Yaad): r where ||r||_2 <= delta, else delta sign(r). It is the gradient of
      1/2 ||r||^2 on one side and of delta ||r||_1 on the other, and of no one loss.

    Attributes:
        variant: which of the three.
        delta: the threshold where none is given per token, and where a learned one starts; > 0.
        data_dependent: whether a layer computes delta_t from the token.
    """

    variant: Literal["coordinate", "norm", "mixture"] = "mixture"
    delta: float = 1.0
    data_dependent: bool = True

    def validate(self) -> None:
        """Check ranges."""
        require(self.delta > 0, f"Huber.delta={self.delta} must be positive.")

    def gates(self) -> tuple[Gate, ...]:
        """The threshold delta_t > 0."""
        return (Gate("threshold", self.delta, "positive", self.data_dependent, symbol=r"\delta"),)

    def loss(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """The loss per token, [C]; for the mixture the value of the branch taken."""
        threshold = gates["threshold"]
        r, delta = pred - target, threshold[:, None]
        half_square = 0.5 * r * r
        if self.variant == "coordinate":
            size = jnp.abs(r)
            return jnp.sum(
                jnp.where(size <= delta, half_square, delta * (size - 0.5 * delta)), axis=-1
            )
        length = norm(r)[:, 0]
        square = jnp.sum(half_square, axis=-1)
        if self.variant == "norm":
            return jnp.where(length <= threshold, square, threshold * (length - 0.5 * threshold))
        return jnp.where(length <= threshold, square, threshold * jnp.sum(jnp.abs(r), axis=-1))

    def residual(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """The variant's direction, [C, dv]."""
        r, delta = pred - target, gates["threshold"][:, None]
        if self.variant == "coordinate":
            return jnp.clip(r, -delta, delta)
        far = delta * (direction(r) if self.variant == "norm" else jnp.sign(r))
        return jnp.where(norm(r) <= delta, r, far)

    def formula(self, gates) -> BiasFormula:
        """The variant's residual."""
        delta = gates["threshold"]
        if self.variant == "coordinate":
            return BiasFormula(lambda r: rf"\max(-{delta}, \min({r}, {delta}))")
        far = {
            "norm": lambda r: rf"{delta} \frac{{{r}}}{{\|{r}\|_2}}",
            "mixture": lambda r: rf"{delta} \mathrm{{sign}}({r})",
        }[self.variant]
        return BiasFormula(
            lambda r: rf"{r} \text{{ if }} \|{r}\|_2 \leq {delta}, \text{{ else }} {far(r)}"
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        equation = {"coordinate": 14, "norm": 15, "mixture": 16}[self.variant]
        return (f"MIRAS, arXiv 2504.13173, eq. {equation}",)
