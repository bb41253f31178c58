"""The contract of a memory algorithm: how the memory descends on its attentional bias.

This is the *inner* algorithm, which runs while the model reads. The optimiser that trains the
model's own parameters is optax and lives in `miras.train`.
"""

import dataclasses
from typing import ClassVar

from miras.config import Config, require
from miras.gate import Gate
from miras.optim.coefficients import Coefficients
from miras.registry import Registry
from miras.typing import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(Config):
    """Memory algorithm: from a token's gradient to the step S_t added to the dual state.

    To add one: subclass with frozen fields, implement `coefficients` (the chunk form) and `step`
    (one token of the same recursion, the oracle's form), declare further gates, decorate with
    `@miras.optim.register("kind")`.

    Attributes:
        lr: eta where it is not given per token, and where a learned one starts.
        max_lr: end of a learned rate's range (0, max_lr).
        data_dependent: whether a layer computes eta_t from the token.
    """

    registry: ClassVar[Registry["Algorithm"]] = Registry("algorithm")
    has_momentum: ClassVar[bool] = False

    lr: float = 0.1
    max_lr: float = 1.0
    data_dependent: bool = True

    def validate(self) -> None:
        """Check ranges."""
        name = type(self).__name__
        require(self.lr > 0, f"{name}.lr={self.lr} must be positive.")
        require(
            self.lr < self.max_lr or not self.data_dependent,
            f"{name}.lr={self.lr} must be below max_lr={self.max_lr} when it is data-dependent.",
        )

    def gates(self) -> tuple[Gate, ...]:
        """eta_t."""
        return (Gate("lr", self.lr, "bounded", self.data_dependent, upper=self.max_lr),)

    def coefficients(
        self, log_decay: Array | None, log_momentum: Array | None, write: Array
    ) -> Coefficients:
        """The chunk form: log gates [C] (None = 1 throughout) and write [C] of 0 and 1."""
        raise NotImplementedError

    def step(self, S: Array | None, momentum: Array | None, update: Array) -> Array:
        """S_t from S_{t-1} (None without momentum), mu_t and the update -eta_t g_t."""
        raise NotImplementedError


register = Algorithm.registry.register
