"""Several gradient steps on one token."""

import dataclasses
from typing import ClassVar

from miras.config import own, require
from miras.optim.base import register
from miras.optim.gd import GD


@register("multi_step")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiStep(GD):
    """n gradient steps on each token, one after another.

        W^(0) = W_r;  W^(j) = W^(j-1) - eta_j g_j(W^(j-1));  U_t = W^(n) - W^(0)

    Where the keys have an axis of terms, step j has a key, value and rate of its own: DeltaProduct
    (2502.10297), equation 5, on a linear memory with l2 bias. Inside a chunk a step sees the
    token's earlier steps and the snapshot; with chunk=1, or exact=True, all tokens before it.

    Attributes:
        steps: n, >= 1.
    """

    sequential: ClassVar[bool] = True

    steps: int = own(2)

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(self.steps >= 1, f"MultiStep.steps={self.steps} must be at least 1.")

    @property
    def terms(self) -> int:
        """n."""
        return self.steps

    def sources(self) -> tuple[str, ...]:
        """DeltaProduct."""
        return ("DeltaProduct, arXiv 2502.10297, eq. 5",)
