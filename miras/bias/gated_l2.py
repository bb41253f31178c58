"""Squared-error bias between gated keys and gated values: erasing and writing apart."""

import dataclasses
from collections.abc import Iterator, Mapping

from miras.array_typing import Array
from miras.bias.base import register
from miras.bias.l2 import L2Loss
from miras.config import require
from miras.parts.association import Association, Buffers
from miras.parts.formula import AssociationFormula, Line, Symbols
from miras.parts.gate import Gate
from miras.parts.part import Condition, RuleView


@register("gated_l2")
@dataclasses.dataclass(frozen=True)
class GatedL2(L2Loss):
    """loss = 1/2 ||M(b_t * k_t) - w_t * v_t||^2, its error written along k_t.

    Gated DeltaNet-2 (2605.22791) has two gates in place of one rate: the erase gate b_t, per key
    channel, says where the memory is read for what is erased, and the write gate w_t, per value
    channel, how much of the value is written. With a matrix memory and one step of rate 1,

        W_t = W + k_t^T (w_t * v_t - (b_t * k_t) W)

    The direction k_t is the paper's, not the gradient of the loss, which is along b_t * k_t. Where
    b_t = w_t = beta_t, a number, it is the l2 bias under the rate beta_t.

    Attributes:
        erase: b where it is not given per token, and where a learned one starts.
        write: w likewise, in (0, 1).
        negative_eigenvalues: b in (0, 2) instead of (0, 1), so that an erasure may turn a sign
            (2411.12537); w stays in (0, 1). In flash-linear-attention, `allow_neg_eigval` doubles
            b, where a learned one starts included: set `erase` to the doubled value.
    """

    erase: float = 0.5
    write: float = 0.5
    negative_eigenvalues: bool = False

    def validate(self) -> None:
        """Check ranges."""
        for name, value, upper in (
            ("erase", self.erase, self._upper),
            ("write", self.write, 1.0),
        ):
            require(0 < value < upper, f"GatedL2.{name}={value} must be in (0, {upper:g}).")

    @property
    def _upper(self) -> float:
        return 2.0 if self.negative_eigenvalues else 1.0

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """A key to write along."""
        yield self._writes_along(rule)
        yield from super().conditions(rule)

    def gates(self) -> tuple[Gate, ...]:
        """b_t and w_t."""
        return (
            Gate("erase", self.erase, "bounded", True, upper=self._upper, side="key", symbol="b"),
            Gate("write", self.write, "bounded", True, upper=1.0, side="value", symbol="w"),
        )

    def associate(
        self, tokens: Association, gates: Mapping[str, Array], buffers: Buffers
    ) -> Association:
        """Read at b * k, write along k what is missing of w * v."""
        erase, write = gates["erase"], gates["write"]
        if tokens.k.ndim == 3:  # the same gates for all of a token's associations
            erase, write = erase[:, None, :], write[:, None, :]
        return tokens._replace(k=erase * tokens.k, k_write=tokens.along, v=write * tokens.v)

    def association_formula(
        self, tokens: AssociationFormula, gates: Symbols
    ) -> tuple[AssociationFormula, tuple[Line, ...]]:
        """(b * k, k, w * v)."""
        b, w = gates["erase"], gates["write"]
        read = rf"({b} \odot {tokens.read})" if tokens.read else ""
        value = rf"({w} \odot {tokens.value})" if tokens.value else ""
        return tokens._replace(read=read, value=value), ()

    def sources(self) -> tuple[str, ...]:
        """Gated DeltaNet-2."""
        return ("Gated DeltaNet-2, arXiv 2605.22791",)
