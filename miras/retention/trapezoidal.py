"""Trapezoidal retention: weight decay over steps that write at both of their ends (Mamba-3)."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from miras.array_typing import Array
from miras.config import require
from miras.parts.association import Association, Buffers
from miras.parts.formula import AssociationFormula, Line, RetentionFormula, Symbols
from miras.parts.gate import Gate
from miras.retention.base import register
from miras.retention.l2 import L2


@register("trapezoidal")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trapezoidal(L2):
    """A_t = alpha_t (A_{t-1} + (1 - lambda_t) U'_t) + lambda_t U_t, W_t = A_t.

    The trapezoidal rule of Mamba-3 (2603.15569). U_t is the step for the token's own association,
    U'_t the step of the same rate for the association of the token before, whose error is read at
    the same weights as that of U_t. U' is written at the beginning of the step from one token to
    the next, so it decays over the step. In a segment's first token U' is 0. With lambda_t = 1 it
    is `l2` retention. A token has two associations for each of its own, each with its scale of the
    rate. With a matrix memory, dot bias and gd of rate eta, of which Mamba-3 also makes alpha
    (`discretised`),

        W_t = alpha_t W_{t-1} + eta_t lambda_t k_t^T v_t
              + eta_t (1 - lambda_t) alpha_t k_{t-1}^T v_{t-1}

    with sums over r of k_r^T v_r in place of k^T v where a token has R associations (MIMO). Decays
    are per head.

    Attributes:
        trapezoid: lambda where it is not given per token, and where a learned one starts; in
            (0, 1], below 1 where it is learned, as `data_dependent` says.
    """

    association_count: ClassVar[int] = 2
    carried_by_term: ClassVar[tuple[str, ...]] = ("previous_key", "previous_value")

    trapezoid: float = 0.5

    def validate(self) -> None:
        """Check ranges, and that one decay scales a whole write."""
        super().validate()
        name, value = type(self).__name__, self.trapezoid
        legal = 0 < value < 1 or (value == 1 and not self.data_dependent)
        bracket = ")" if self.data_dependent else "]"
        require(legal, f"{name}.trapezoid={value} must be in (0, 1{bracket}.")
        require(
            self.granularity == "head",
            f"{name}.granularity={self.granularity!r} would decay channels of a write apart: use "
            "'head'.",
        )

        require(
            self.min_log_decay == L2.min_log_decay,
            f"{name}.min_log_decay={self.min_log_decay:g} holds decays per channel, of which it "
            f"has none: leave it at {L2.min_log_decay:g}.",
        )

    def gates(self) -> tuple[Gate, ...]:
        """log alpha_t and lambda_t."""
        learned = self.data_dependent
        own = Gate("trapezoid", self.trapezoid, "bounded", learned, upper=1.0, symbol=r"\lambda")
        return (*super().gates(), own)

    def carries(self, dk: int, dv: int) -> dict[str, tuple[int, ...]]:
        """The keys and the values of the token before, and whether there is one."""
        return {"previous_key": (dk,), "previous_value": (dv,), "has_previous": (1,)}

    def associate(
        self, tokens: Association, gates: Mapping[str, Array], buffers: Buffers
    ) -> Association:
        """The token's own associations, and those of the token before."""
        k, v, own = tokens.k, tokens.v, gates["trapezoid"]
        k_before, v_before = (
            buffers.previous(name, x) for name, x in (("previous_key", k), ("previous_value", v))
        )
        there = buffers.previous("has_previous", jnp.ones_like(own)[:, None])[:, 0]
        earlier = there * (1 - own) * jnp.exp(gates["log_decay"])
        each = k.shape[1] if k.ndim == 3 else 1
        join = jnp.stack if k.ndim == 2 else jnp.concatenate
        return Association(
            k=join([k, k_before], axis=1),
            k_write=None,
            v=join([v, v_before], axis=1),
            scale=jnp.stack([own] * each + [earlier] * each, axis=1),
        )

    def formula(self, gates) -> RetentionFormula:
        """As l2, from nothing before a document's first token."""
        line = Line("k_0, v_0", "0", when="nothing is before a document's first token")
        return super().formula(gates)._replace(where=(line,))

    def association_formula(
        self, tokens: AssociationFormula, gates: Symbols
    ) -> tuple[AssociationFormula, tuple[Line, ...]]:
        """The token's own, scaled by lambda_t."""
        return tokens._replace(scale=gates["trapezoid"]), ()

    def further_formula(
        self, tokens: AssociationFormula, gates: Symbols
    ) -> tuple[AssociationFormula, ...]:
        """That of the token before, scaled by (1 - lambda_t) alpha_t."""
        read, write, value = (x.replace("_t", "_{t-1}") for x in tokens[:3])
        alpha = self.formula(gates).decay or gates["log_decay"]
        return (AssociationFormula(read, write, value, f"(1 - {gates['trapezoid']}) {alpha}"),)

    def sources(self) -> tuple[str, ...]:
        """Those of l2, and Mamba-3."""
        return (*super().sources(), "the trapezoidal rule: Mamba-3, arXiv 2603.15569")
