"""Gradient descent: one step on each token's own loss."""

import dataclasses
from typing import ClassVar

from miras.formula import AlgorithmFormula, wrap
from miras.optim.base import Algorithm, register
from miras.optim.coefficients import Coefficients, products


@register("gd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GD(Algorithm):
    """U_t = -eta_t g_t. MIRAS (2504.13173), section 3."""

    local: ClassVar[bool] = True

    def coefficients(self, log_decay, log_momentum, rate, write, band) -> Coefficients:
        """C = the decay products."""
        c, beta = products(log_decay, write.shape[0], write.dtype)
        return Coefficients(c, beta)

    def step(self, S, V, G, momentum, rate):
        """-eta_t g_t."""
        return None, None, -G

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """-eta_t g_t."""
        return AlgorithmFormula(f"- {wrap(G)}")

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, section 3",)
