"""An algorithm with a second rate."""

import dataclasses

import jax.numpy as jnp

from miras.optim import Coefficients, register
from miras.optim.coefficients import products
from miras.optim.momentum import Momentum, momentum_of
from miras.parts.formula import AlgorithmFormula, Line, wrap
from miras.parts.gate import Gate


@register("quasi_hyperbolic")
@dataclasses.dataclass(frozen=True, kw_only=True)
class QuasiHyperbolic(Momentum):
    """S_t = mu_t S_{t-1} - eta_t g_t, U_t = S_t - nu_t eta_t g_t: a second rate for the gradient.

    Quasi-hyperbolic momentum (1810.06801) up to the names of its rates.

    Attributes:
        second: nu where the gate starts; in (0, 1).
    """

    second: float = 0.5

    def gates(self):
        """eta_t, log mu_t and nu_t."""
        return (*super().gates(), Gate("second", self.second, "bounded", True, upper=1.0))

    def coefficients(self, log_decay, gates, write, band):
        """c = La diag(write) (Lm + diag(nu))."""
        size = write.shape[0]
        La, beta = products(log_decay, size, write.dtype)
        Lm, m = products(gates["log_momentum"], size, write.dtype)
        same = jnp.arange(size)[:, None] == jnp.arange(size)[None, :]
        step = Lm + jnp.where(same, gates["second"][:, None], 0.0)
        return Coefficients(La @ (write[:, None] * step), beta, La @ (write * m), Lm, m)

    def step(self, S, V, G, gates):
        """S_t - nu_t eta_t g_t."""
        S = momentum_of(gates) * S - G
        return S, None, S - gates["second"] * G

    def formula(self, gates, G, rate):
        """S_t, and the step."""
        S = Line("S_t", f"{gates['log_momentum']} S_{{t-1}} - {wrap(G)}")
        return AlgorithmFormula(f"+ S_t - {gates['second']} {wrap(G)}", (S,))

    def sources(self):
        """Ma and Yarats."""
        return ("arXiv 1810.06801",)
