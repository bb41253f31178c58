"""Newton's method: the exact minimiser over the whole history, as recursive least squares."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from miras.config import require
from miras.optim.base import LeastSquares, register
from miras.optim.gd import GD
from miras.parts.formula import Line, number, raised, times
from miras.parts.part import Condition, RuleView


@register("newton")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Newton(GD):
    """The minimiser of sum_s zeta_s eta_s ||k_s W - v_s||^2 + ridge ||W - W_0||^2.

        H_t = alpha_t H_{t-1} + eta_t k_t^T k_t        H_0 = 0
        G_t = alpha_t G_{t-1} + eta_t k_t^T v_t        G_0 = ridge W_0
        W_t = (H_t + ridge I)^{-1} G_t

    with zeta_s the decay since s. MesaNet (2506.05233), equations 4-6; uncovering mesa-optimization
    (2309.05858), section 3. For a linear memory with l2 bias; it sees every token in full, so the
    chunk changes nothing but the cost. H is carried as a weight named "H".

    Attributes:
        ridge: of the regulariser, > 0.
        solver: "cg", conjugate gradient on all tokens of a chunk at once, whose H_t are never
            formed; "exact" forms and solves each.
        iterations: of "cg", >= 1; dk of them are exact but for rounding.
    """

    takes_terms: ClassVar[bool] = False
    online: ClassVar[bool] = True
    separable: ClassVar[bool] = False

    lr: float = 1.0
    max_lr: float = 2.0
    ridge: float = 1.0
    solver: Literal["cg", "exact"] = "cg"
    iterations: int = 16

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(self.ridge > 0, f"Newton.ridge={self.ridge} must be positive.")
        require(self.iterations >= 1, f"Newton.iterations={self.iterations} must be at least 1.")
        require(
            not self.averaged,
            "Newton.averaged=True does not apply: its solution has no steps to average. Use "
            "averaged=False, or algorithm 'gd'.",
        )

    @property
    def least_squares(self) -> LeastSquares:
        """The fields."""
        return LeastSquares(self.ridge, self.solver, self.iterations)

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Least squares in a linear memory, with past tokens weighed by a scalar per head."""
        yield self._needs_least_squares(rule)
        retention = rule.retention
        by_head = all(gate.side == "head" for gate in (*retention.gates(), *self.gates()))
        yield Condition(
            retention.linked is None and by_head,
            "algorithm 'newton' weighs past tokens by one number per head, not by channel or in "
            f"the geometry of {retention.kind!r}",
            "use retention 'none' or 'l2', and granularity='head' in both parts",
        )
        yield Condition(
            rule.order == "learn_first" and rule.read == "token",
            "algorithm 'newton' solves for W after every token, so order and read have no other "
            "meaning",
            "use order='learn_first' and read='token'",
        )
        yield from super().conditions(rule)

    def flops(self, shape: tuple[int, ...], chunk: int) -> float:
        """H's own product, and the solver's with H_t in dual form."""
        rows = shape[0]
        product = 2 * rows * rows + 4 * chunk * rows
        return 2 * rows * rows + self.iterations * product

    def solution(self, keep, rate: str, k: str, v: str) -> tuple[Line, ...]:
        """H_t, G_t and the solve."""
        ridge = number(self.ridge)
        eye = "I" if self.ridge == 1 else f"{ridge} I"
        start = "W_0" if self.ridge == 1 else f"{ridge} W_0"
        how = f"by {self.iterations} steps of conjugate gradient" if self.solver == "cg" else ""
        return (
            Line(
                "H_t", f"{keep('H_{t-1}')} + {times(rate, f'{raised(k)} {k}')}", when="from H_0 = 0"
            ),
            Line(
                "G_t",
                f"{keep('G_{t-1}')} + {times(rate, f'{raised(k)} {v}')}",
                when=f"from G_0 = {start}",
            ),
            Line("W_t", rf"(H_t + {eye})^{{-1}} G_t", when=how or "solved exactly"),
        )

    def sources(self) -> tuple[str, ...]:
        """MesaNet."""
        return ("MesaNet, arXiv 2506.05233, eq. 4-6", "arXiv 2309.05858, section 3")
