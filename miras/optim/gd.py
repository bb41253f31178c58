"""Gradient descent: one step on each token's own loss."""

import dataclasses

from miras.optim.base import Algorithm, register
from miras.optim.coefficients import Coefficients, products
from miras.typing import Array


@register("gd")
@dataclasses.dataclass(frozen=True)
class GD(Algorithm):
    """S_t = -eta_t g_t. MIRAS (2504.13173), section 3."""

    def coefficients(
        self, log_decay: Array | None, log_momentum: Array | None, write: Array
    ) -> Coefficients:
        """C = the decay products."""
        c, beta = products(log_decay, write.shape[0], write.dtype)
        return Coefficients(c, beta)

    def step(self, S: Array | None, momentum: Array | None, update: Array) -> Array:
        """-eta_t g_t."""
        return update
