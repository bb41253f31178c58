"""A retention with a further gate."""

import dataclasses
from typing import ClassVar

from miras.parts.formula import RetentionFormula
from miras.parts.gate import Gate
from miras.retention import Decaying, register


@register("leaky")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaky(Decaying):
    """W_t = (1 - leak_t) Z + leak_t W_{t-1}, Z = alpha_t W_{t-1} + U_t: part of it stays put.

    Attributes:
        leak: where the gate starts; in (0, 1).
        link_every: see `Retention`.
    """

    proximal: ClassVar[bool] = True

    leak: float = 0.2
    link_every: str = "token"

    @property
    def linked(self):
        """`link_every`."""
        return self.link_every

    def gates(self):
        """log alpha_t and leak_t."""
        return (*super().gates(), Gate("leak", self.leak, "bounded", True, upper=1.0))

    def prox(self, new, old, gates):
        """A mean of the new and of the old."""
        return new + gates["leak"] * (old - new)

    def formula(self, gates):
        """The mean."""
        leak = gates["leak"]
        return RetentionFormula(prox=lambda new, old, step: f"(1 - {leak}) ({new}) + {leak} {old}")
