"""No algorithm: a memory that keeps every token has nothing to optimise."""

import dataclasses

from miras.optim.base import Algorithm, register
from miras.parts.gate import Gate


@register("nonparametric")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NonParametric(Algorithm):
    """The Nadaraya-Watson minimiser of the l2 bias, found without a step. MIRAS, section 3.

    For the `kv` memory only, which is softmax attention.
    """

    data_dependent: bool = False

    def gates(self) -> tuple[Gate, ...]:
        """None."""
        return ()

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("Nadaraya-Watson: MIRAS, arXiv 2504.13173, section 3",)
