"""No retention gate: everything written stays."""

import dataclasses
from typing import ClassVar

from miras.parts.formula import RetentionFormula
from miras.retention.base import Retention, register


@register("none")
@dataclasses.dataclass(frozen=True)
class NoRetention(Retention):
    """A_t = A_{t-1} + S_t, W_t = A_t."""

    separable: ClassVar[bool] = True

    def formula(self, gates) -> RetentionFormula:
        """Nothing beside the step."""
        return RetentionFormula()
