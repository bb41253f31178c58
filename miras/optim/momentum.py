"""Gradient descent with momentum: Titans' past and momentary surprise."""

import dataclasses
from typing import ClassVar

from miras.config import require
from miras.gate import Gate
from miras.optim.base import Algorithm, register
from miras.optim.coefficients import Coefficients, products
from miras.typing import Array


@register("momentum")
@dataclasses.dataclass(frozen=True)
class Momentum(Algorithm):
    """S_t = mu_t S_{t-1} - eta_t g_t. Titans (2501.00663), equations 9-10 and 14.

    Attributes:
        momentum: mu where it is not given per token, and where a learned one starts; in (0, 1).
    """

    has_momentum: ClassVar[bool] = True

    momentum: float = 0.9

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(0 < self.momentum < 1, f"Momentum.momentum={self.momentum} must be in (0, 1).")

    def gates(self) -> tuple[Gate, ...]:
        """eta_t and log mu_t."""
        mu = Gate("log_momentum", self.momentum, "log_unit", self.data_dependent)
        return (*super().gates(), mu)

    def coefficients(
        self, log_decay: Array | None, log_momentum: Array | None, write: Array
    ) -> Coefficients:
        """C = La diag(write) Lm and p = La (write * m): masked tokens leave A as it is."""
        La, beta = products(log_decay, write.shape[0], write.dtype)
        Lm, m = products(log_momentum, write.shape[0], write.dtype)
        return Coefficients(c=La @ (write[:, None] * Lm), beta=beta, p=La @ (write * m), n=Lm, m=m)

    def step(self, S: Array | None, momentum: Array | None, update: Array) -> Array:
        """mu_t S_{t-1} - eta_t g_t."""
        assert S is not None
        assert momentum is not None
        return momentum * S + update
