"""Momentum with two rates: one on each gradient, one on the step that the buffer gives."""

import dataclasses

from miras.config import own, require
from miras.optim.base import register
from miras.optim.coefficients import Coefficients, products
from miras.optim.momentum import Momentum, momentum_of
from miras.parts.formula import AlgorithmFormula, times
from miras.parts.gate import Gate


@register("two_rate_momentum")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoRateMomentum(Momentum):
    """S_t = mu_t S_{t-1} - eta_t g_t, U_t = beta_t S_t. Momentum DeltaNet (2605.05838).

    eta_t scales the gradient that enters the buffer, beta_t the buffer that enters the weights. The
    buffer is the paper's -M. It has no factor 1 - mu_t and is not decayed by the retention. With
    mu = 0 this is `gd` at the rate beta_t eta_t, with beta = 1 `momentum`.

    Attributes:
        update_rate: beta where it is not given per token, and where a learned one starts; in
            (0, 1), or 1 where it is not data-dependent.
    """

    update_rate: float = own(0.5)

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        held = not self.data_dependent and self.update_rate == 1
        require(
            0 < self.update_rate < 1 or held,
            f"{type(self).__name__}.update_rate={self.update_rate} must be in (0, 1), or 1 with "
            "data_dependent=False.",
        )

    def gates(self) -> tuple[Gate, ...]:
        """eta_t, log mu_t and beta_t."""
        beta = Gate(
            "update_rate",
            self.update_rate,
            "bounded",
            self.data_dependent,
            upper=1.0,
            role="update",
            symbol=r"\beta",
        )
        return (*super().gates(), beta)

    def coefficients(self, log_decay, gates, write, band) -> Coefficients:
        """Those of momentum with write * beta for write: c = La diag(write beta) Lm."""
        size, rate = write.shape[0], write * gates["update_rate"]
        La, beta = products(log_decay, size, write.dtype)
        Lm, m = products(gates["log_momentum"], size, write.dtype)
        return Coefficients(c=La @ (rate[:, None] * Lm), beta=beta, p=La @ (rate * m), n=Lm, m=m)

    def step(self, S, V, G, gates):
        """beta_t S_t."""
        S = momentum_of(gates) * S - G
        return S, None, gates["update_rate"] * S

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """S_t, and the step, a multiple of it."""
        return (
            super().formula(gates, G, rate)._replace(step=f"+ {times(gates['update_rate'], 'S_t')}")
        )

    def sources(self) -> tuple[str, ...]:
        """Momentum DeltaNet."""
        return ("Momentum DeltaNet, arXiv 2605.05838",)
