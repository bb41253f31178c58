"""The Omega rule: each step descends on the losses of a window of tokens."""

import dataclasses

import jax.numpy as jnp

from miras.config import require
from miras.optim.base import Algorithm, register
from miras.optim.coefficients import Coefficients, products
from miras.optim.momentum import momentum_gate, momentum_of
from miras.parts.formula import AlgorithmFormula, Line, times, wrap
from miras.parts.gate import Gate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windowed(Algorithm):
    """Base of algorithms that descend on a window of tokens, with or without momentum.

    Attributes:
        window: w, the tokens whose losses make up one step, >= 1. The window holds the last w
            tokens that were written, also over chunk edges: those of earlier chunks are looked at
            again at the new snapshot.
        weight: gamma, the weight of a token in every window it lies in, in (0, 1]; held where it
            is not given per token, and where a learned one starts.
        momentum: mu in (0, 1), or None for none.
    """

    window: int = 1
    weight: float = 1.0
    momentum: float | None = None

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        name = type(self).__name__
        require(self.window >= 1, f"{name}.window={self.window} must be at least 1.")
        require(0 < self.weight <= 1, f"{name}.weight={self.weight} must be in (0, 1].")
        require(
            self.momentum is None or 0 < self.momentum < 1,
            f"{name}.momentum={self.momentum} must be in (0, 1), or none.",
        )

    @property
    def lr_at(self):
        """The step's own eta_t scales it, not that of the tokens in its window."""
        return "update"

    def gates(self) -> tuple[Gate, ...]:
        """eta_t, gamma_t where windows overlap, and log mu_t."""
        gates = super().gates()
        if self.window > 1:
            learned = self.data_dependent and self.weight < 1
            gates += (
                Gate(
                    "weight",
                    self.weight,
                    "bounded",
                    learned,
                    upper=1.0,
                    role="weight",
                    symbol=r"\gamma",
                ),
            )
        if self.momentum is not None:
            gates += (momentum_gate(self.momentum, self.data_dependent),)
        return gates


@register("omega")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Omega(Windowed):
    """S_t = mu_t S_{t-1} - eta_t sum_{i in window} gamma_i g_i, U_t = S_t.

    The Omega rule of Atlas (2505.23735), section 3.2: the memory descends on the context of the
    last w tokens instead of on the last one. With momentum OmegaNet's; w = 1 is the delta rule, or
    Titans.
    """

    window: int = 4

    @property
    def keeps(self) -> tuple[str, ...]:
        """S with momentum."""
        return () if self.momentum is None else ("S",)

    def coefficients(self, log_decay, gates, write, band) -> Coefficients:
        """c = La diag(write) Lm diag(eta) band."""
        size, rate = write.shape[0], self.step_rate(gates)
        La, beta = products(log_decay, size, write.dtype)
        scaled = jnp.diag(write * rate) if band is None else (write * rate)[:, None] * band
        if self.momentum is None:
            return Coefficients(La @ scaled, beta)
        Lm, m = products(gates["log_momentum"], size, write.dtype)
        n = Lm @ scaled
        return Coefficients(La @ (write[:, None] * n), beta, La @ (write * m), n, m)

    def step(self, S, V, G, gates):
        """mu_t S_{t-1} - eta_t G_t."""
        rate = self.step_rate(gates)
        if self.momentum is None:
            return None, None, -rate * G
        S = momentum_of(gates) * S - rate * G
        return S, None, S

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """The step, or S_t."""
        if self.momentum is None:
            return AlgorithmFormula(f"- {times(rate, G)}")
        mu = gates["log_momentum"]
        return AlgorithmFormula("+ S_t", (Line("S_t", f"{mu} S_{{t-1}} - {times(rate, wrap(G))}"),))

    def sources(self) -> tuple[str, ...]:
        """Atlas."""
        return ("the Omega rule: Atlas, arXiv 2505.23735, section 3.2",)
