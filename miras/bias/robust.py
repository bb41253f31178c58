"""Robust bias: the worst case over a bounded shift of the value."""

import dataclasses
from collections.abc import Mapping

from miras.array_typing import Array
from miras.bias.base import Bias, register
from miras.bias.l2 import L2Loss
from miras.config import require
from miras.parts.formula import BiasFormula, number
from miras.parts.norms import direction, norm


@register("robust")
@dataclasses.dataclass(frozen=True)
class Robust(Bias):
    """loss = max over ||d|| <= radius of 1/2 ||r - d||^2 = 1/2 (||r|| + radius)^2.

    MIRAS (2504.13173), equation 17; residual r + radius r / ||r||, and 0 at 0.

    Attributes:
        radius: the largest shift of a value, in its units; >= 0. At 0 it is the l2 bias.
    """

    radius: float = 0.1

    def validate(self) -> None:
        """Check ranges."""
        require(self.radius >= 0, f"Robust.radius={self.radius} must not be negative.")

    def loss(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """1/2 ||r||^2 + radius ||r|| + 1/2 radius^2, [C]."""
        length = norm(pred - target)[:, 0]
        return 0.5 * (length + self.radius) ** 2

    def residual(self, pred: Array, target: Array, gates: Mapping[str, Array]) -> Array:
        """r + radius r / ||r||, [C, dv]."""
        r = pred - target
        return r + self.radius * direction(r)

    def formula(self, gates) -> BiasFormula:
        """1/2 (||r|| + radius)^2."""
        if self.radius == 0:
            return L2Loss().formula(gates)
        radius = number(self.radius)
        return BiasFormula(
            residual=lambda r: rf"{r} + {radius} \frac{{{r}}}{{\|{r}\|_2}}",
            loss=lambda p, v: rf"\frac{{1}}{{2}} (\|{p} - {v}\|_2 + {radius})^2",
        )

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, eq. 17",)
