"""Gradient descent with momentum: Titans' past and momentary surprise, and Nesterov's form."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from miras.array_typing import Array
from miras.config import require
from miras.optim.base import Algorithm, register
from miras.optim.coefficients import MIN_LOG, Coefficients, products
from miras.parts.formula import AlgorithmFormula, Line, wrap
from miras.parts.gate import Gate


def momentum_gate(value: float, learned: bool) -> Gate:
    """log mu_t."""
    return Gate("log_momentum", value, "log_unit", learned, role="momentum", symbol=r"\mu")


def momentum_of(gates: Mapping[str, Array]) -> Array:
    """mu_t."""
    return jnp.exp(gates["log_momentum"])


@register("momentum")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Momentum(Algorithm):
    """S_t = mu_t S_{t-1} - eta_t g_t, U_t = S_t. Titans (2501.00663), equations 9-10 and 14.

    Attributes:
        momentum: mu where it is not given per token, and where a learned one starts; in (0, 1).
    """

    separable: ClassVar[bool] = True

    momentum: float = 0.9

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        name = type(self).__name__
        require(0 < self.momentum < 1, f"{name}.momentum={self.momentum} must be in (0, 1).")

    @property
    def keeps(self) -> tuple[str, ...]:
        """S."""
        return ("S",)

    def gates(self) -> tuple[Gate, ...]:
        """eta_t and log mu_t."""
        return (*super().gates(), momentum_gate(self.momentum, self.data_dependent))

    def coefficients(self, log_decay, gates, write, band) -> Coefficients:
        """c = La diag(write) Lm and p = La (write * m): masked tokens leave A as it is."""
        La, beta = products(log_decay, write.shape[0], write.dtype)
        Lm, m = products(gates["log_momentum"], write.shape[0], write.dtype)
        return Coefficients(c=La @ (write[:, None] * Lm), beta=beta, p=La @ (write * m), n=Lm, m=m)

    def step(self, S, V, G, gates):
        """mu_t S_{t-1} - eta_t g_t."""
        S = momentum_of(gates) * S - G
        return S, None, S

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """S_t, which is the step."""
        return AlgorithmFormula(
            "+ S_t", (Line("S_t", f"{gates['log_momentum']} S_{{t-1}} - {wrap(G)}"),)
        )

    def sources(self) -> tuple[str, ...]:
        """Titans."""
        return ("Titans, arXiv 2501.00663, eq. 9-10 and 14",)


@register("nesterov")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Nesterov(Momentum):
    """S_t = mu_t S_{t-1} - eta_t g_t, U_t = mu_t S_t - eta_t g_t.

    Nesterov's momentum in the form that takes the gradient where the weights are (Sutskever et al.
    2013, section 2; as optax and PyTorch have it), with mu_t of the token at hand.
    """

    def coefficients(self, log_decay, gates, write, band) -> Coefficients:
        """c = La diag(write) (diag(mu) Lm + 1)."""
        size = write.shape[0]
        La, beta = products(log_decay, size, write.dtype)
        Lm, m = products(gates["log_momentum"], size, write.dtype)
        mu = _mu(gates["log_momentum"])
        lookahead = mu[:, None] * Lm + _identity(size, write.dtype)
        return Coefficients(
            c=La @ (write[:, None] * lookahead), beta=beta, p=La @ (write * mu * m), n=Lm, m=m
        )

    def step(self, S, V, G, gates):
        """mu_t S_t - eta_t g_t."""
        mu = momentum_of(gates)
        S = mu * S - G
        return S, None, mu * S - G

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """S_t, and the step ahead of it."""
        lookahead = f"+ {gates['log_momentum']} S_t - {wrap(G)}"
        return super().formula(gates, G, rate)._replace(step=lookahead)

    def sources(self) -> tuple[str, ...]:
        """Sutskever et al."""
        return ("Sutskever et al. 2013, section 2",)


def _mu(log_momentum: Array) -> Array:
    return jnp.exp(jnp.maximum(log_momentum, MIN_LOG))


def _identity(size: int, dtype) -> Array:
    row, column = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    return (row == column).astype(dtype)
