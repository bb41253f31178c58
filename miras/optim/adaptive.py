"""Adaptive steps: the sign of the gradient, or the gradient over its root mean square."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from miras.config import require
from miras.optim.base import register
from miras.optim.muon import Transformed
from miras.parts.formula import AlgorithmFormula, Line, number, times, wrap


@register("adaptive")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive(Transformed):
    """T(S) element by element.

    - "sign": sign(S), with momentum signSGD's or Lion's step (1802.04434, 2302.06675). Its outer
      gradient by S is 0 almost everywhere, so `sharpness` makes it tanh(sharpness S) if given.
    - "rms": S / (sqrt(V) + eps) with V_t = beta2 V_{t-1} + (1 - beta2) G_t^2, as RMSProp, or Adam
      without its correction of the start (1412.6980). With every="chunk" V is brought up to date
      by the chunk's S, once.

    Attributes:
        variant: which of the two.
        beta2: decay of V, in [0, 1).
        eps: added to sqrt(V), > 0.
        sharpness: of the smooth sign, or None for the sign itself.
    """

    variant: Literal["sign", "rms"] = "rms"
    beta2: float = 0.99
    eps: float = 1e-8
    sharpness: float | None = None

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(0 <= self.beta2 < 1, f"Adaptive.beta2={self.beta2} must be in [0, 1).")
        require(self.eps > 0, f"Adaptive.eps={self.eps} must be positive.")
        require(
            self.sharpness is None or self.sharpness > 0,
            f"Adaptive.sharpness={self.sharpness} must be positive, or none.",
        )

    @property
    def keeps(self) -> tuple[str, ...]:
        """S and V, as the variant needs them."""
        first = super().keeps
        return first if self.variant == "sign" else ("S", "V") if first else ("V",)

    def step(self, S, V, G, gates):
        """U_t = -eta_t T(S_t), with V_t of G_t."""
        new = G if self.momentum is None else self.accumulate(S, G, gates)
        V = None if V is None else self._second(V, G)
        return (None if self.momentum is None else new), V, self._step(new, V, gates)

    def transform(self, S, V, gates):
        """-f T(S), with V of S."""
        V = None if V is None else self._second(V, S)
        return self._step(S, V, gates), V

    def _second(self, V, G):
        return self.beta2 * V + (1 - self.beta2) * G * G

    def _step(self, S, V, gates):
        rate = self.step_rate(gates)
        if self.variant == "sign":
            sign = jnp.sign(S) if self.sharpness is None else jnp.tanh(self.sharpness * S)
            return -rate * sign
        positive = V > 0
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, V, 1.0)), 0.0)
        return -rate * S / (root + self.eps)

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """S_t and V_t, and the step's elements."""
        S, lines = self.accumulated(gates, G)
        if self.variant == "sign":
            sign = rf"\mathrm{{sign}}({S})"
            if self.sharpness is not None:
                sign = rf"\tanh({number(self.sharpness)} {wrap(S)})"
            return AlgorithmFormula(f"- {times(rate, sign)}", lines)
        seen, when = (S, "at a chunk's last token") if self.acts == "chunk" else (G, "")
        new = number(round(1 - self.beta2, 15))
        before = "V_r" if when else "V_{t-1}"
        V = rf"{number(self.beta2)} {before} + {new} {wrap(seen)} \odot {wrap(seen)}"
        lines = (*lines, Line("V_t", V, when=when))
        step = rf"\frac{{{S}}}{{\sqrt{{V_t}} + {number(self.eps)}}}"
        return AlgorithmFormula(f"- {times(rate, step)}", lines)

    def sources(self) -> tuple[str, ...]:
        """SignSGD or Lion, RMSProp or Adam."""
        if self.variant == "sign":
            lion = self.momentum is not None
            return ("signSGD, arXiv 1802.04434", *(("Lion, arXiv 2302.06675",) if lion else ()))
        return ("Adam without its correction of the start, arXiv 1412.6980",)
