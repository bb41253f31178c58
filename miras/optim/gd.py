"""Gradient descent: one step on each token's own loss."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from miras.config import added
from miras.optim.base import Algorithm, register
from miras.optim.coefficients import Coefficients, products
from miras.parts.formula import AlgorithmFormula, wrap
from miras.parts.part import Condition, RuleView


@register("gd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GD(Algorithm):
    """U_t = -eta_t g_t. MIRAS (2504.13173), section 3.

    With `averaged`, TTT's mini-batch (2407.04620, as its official code has it): token t of a chunk
    that began at W_r reads

        S_t = S_{t-1} - eta_t g_t            from S = 0 at the chunk's start
        W_t = W_r + r_t S_t                  r_t = 1 / (1 + i), i the token's position in the chunk

    so that r_t scales all gradients up to token t, not each by its own position, and the chunk
    leaves the W_t of its last token. `miras.scan` takes other r_t as `average`; a layer learns
    max(0, 1 / (1 + i) + offset_i), with offsets of 0 at the start.

    Attributes:
        averaged: see above. Needs a retention that forgets nothing, and refine=0, exact=False.
    """

    local: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    averaged: bool = added(False)

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Of averages: a retention that forgets nothing."""
        yield from super().conditions(rule)
        if self.averaged:
            yield Condition(
                rule.retention.keeps_all,
                f"algorithm {self.kind!r} with averaged=True counts W_t from the chunk's snapshot, "
                f"W_r + r_t sum_s U_s, of which retention {rule.retention.kind!r} would forget a "
                "part",
                "use retention 'none', or averaged=False",
            )

    def coefficients(self, log_decay, gates, write, band) -> Coefficients:
        """c = the decay products."""
        c, beta = products(log_decay, write.shape[0], write.dtype)
        return Coefficients(c, beta)

    def step(self, S, V, G, gates):
        """-eta_t g_t."""
        return None, None, -G

    def formula(self, gates, G, rate) -> AlgorithmFormula:
        """-eta_t g_t."""
        return AlgorithmFormula(f"- {wrap(G)}")

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("MIRAS, arXiv 2504.13173, section 3",)
