"""Gradient descent with a diagonal preconditioner, made of the keys that were written."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax.numpy as jnp

from miras.array_typing import Array
from miras.config import require
from miras.optim.base import register
from miras.optim.gd import GD
from miras.parts.association import Association, Buffers
from miras.parts.formula import AssociationFormula, Line, Symbols, number
from miras.parts.gate import Gate
from miras.parts.part import Condition, RuleView

_EPS = 1e-6  # the paper's code adds it before the log


@register("preconditioned")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Preconditioned(GD):
    """U_t = -eta_t Diag(P_t) g_t, P_t from the decayed second moment of the keys, per key channel.

        m_t = e^{log nu_t} m_{t-1} + rho_t k_t * k_t          from 0, the token's own key included
        r_t = log(m_t + 1e-6) - c
        P_t = bound^{-r_t / (1 + |r_t|)}                      in (1 / bound, bound)

    Preconditioned DeltaNet (2604.21100), as flash-linear-attention computes it: the error is read
    at k_t and written along P_t * k_t, so a channel whose keys were large takes smaller steps. m is
    the diagonal of the second moment that least squares (`newton`) inverts; `bound` below 2 keeps
    the delta rule stable for eta_t below 1. For matrix memories, with one key a token. Where tokens
    have keys of their own to write along, m and P are those of the keys that are written along.

    Attributes:
        moment_decay: nu where it is not given per token, and where a learned one starts; in
            (0, 1].
        moment_rate: rho likewise, in (0, 1).
        center: c, where the learned value of each head starts, in log units of the moment.
        bound: x of the paper, >= 1; at 1 nothing is preconditioned. 1.5 in the paper.
    """

    lr: float = 0.5
    moment_decay: float = 0.99
    moment_rate: float = 0.5
    center: float = -0.2
    bound: float = 1.5

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        for name, low, legal in (
            ("moment_decay", 0 < self.moment_decay <= 1, "(0, 1]"),
            ("moment_rate", 0 < self.moment_rate < 1, "(0, 1)"),
            ("bound", self.bound >= 1, "[1, inf)"),
        ):
            require(low, f"Preconditioned.{name}={getattr(self, name)} must be in {legal}.")

    @property
    def one_association(self) -> bool:
        """Whose key's moment would be taken is not defined for several."""
        return True

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Rows that are key channels, so that the key itself can be scaled."""
        yield self._writes_along(rule)
        yield Condition(
            "key" in rule.memory.channel_sides,
            f"algorithm {self.kind!r} scales the key channels of a matrix, which memory "
            f"{rule.memory.kind!r} has none of",
            "use memory 'matrix'",
        )
        yield from super().conditions(rule)

    def gates(self) -> tuple[Gate, ...]:
        """eta_t, log nu_t and rho_t from the token; c, one learned value per head."""
        learned = self.data_dependent
        return (
            *super().gates(),
            Gate("log_moment_decay", self.moment_decay, "log_unit", learned, symbol=r"\nu"),
            Gate("moment_rate", self.moment_rate, "bounded", learned, upper=1.0, symbol=r"\rho"),
            Gate("center", self.center, "real", learned, per_token=False, symbol="c"),
        )

    def carries(self, dk: int, dv: int) -> dict[str, tuple[int, ...]]:
        """m, [dk]."""
        del dv
        return {"moment": (dk,)}

    def associate(
        self, tokens: Association, gates: Mapping[str, Array], buffers: Buffers
    ) -> Association:
        """The key to write along, times P."""
        k = tokens.along
        square = gates["moment_rate"][:, None] * k * k
        moment = buffers.decayed_sum("moment", gates["log_moment_decay"], square)
        r = jnp.log(moment + _EPS) - gates["center"][:, None]
        P = jnp.exp(-math.log(self.bound) * r / (1 + jnp.abs(r)))
        return tokens._replace(k_write=P * k)

    def association_formula(
        self, tokens: AssociationFormula, gates: Symbols
    ) -> tuple[AssociationFormula, tuple[Line, ...]]:
        """P_t, r_t and m_t."""
        if self.bound == 1:
            return tokens, ()
        k, nu, rho = tokens.write, gates["log_moment_decay"], gates["moment_rate"]
        lines = (
            Line("m_t", rf"{nu} m_{{t-1}} + {rho} ({k} \odot {k})", when="from m_0 = 0"),
            Line(r"\ell_t", rf"\log(m_t + {number(_EPS)}) - {gates['center']}"),
            Line("P_t", rf"{number(self.bound)}^{{-\frac{{\ell_t}}{{1 + |\ell_t|}}}}"),
        )
        return tokens._replace(write=rf"(P_t \odot {k})"), lines

    def sources(self) -> tuple[str, ...]:
        """Preconditioned DeltaNet."""
        return ("Preconditioned DeltaNet, arXiv 2604.21100",)
