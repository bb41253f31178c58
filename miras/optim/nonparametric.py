"""No algorithm: a memory that keeps every token has nothing to optimise."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from miras.config import own
from miras.optim.base import Algorithm, register
from miras.parts.gate import Gate
from miras.parts.part import Condition, RuleView


@register("nonparametric")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NonParametric(Algorithm):
    """The Nadaraya-Watson minimiser of the l2 bias, found without a step. MIRAS, section 3.

    For the `kv` memory only, which is softmax attention.
    """

    parametric: ClassVar[bool] = False

    data_dependent: bool = own(False)

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """A memory that keeps tokens."""
        yield Condition(
            rule.memory.keeps_tokens,
            f"memory {rule.memory.kind!r} does not go with algorithm 'nonparametric', since 'kv' "
            "keeps all tokens and learns nothing, and every other memory has to",
            "use memory 'kv' with algorithm 'nonparametric', or neither",
        )
        yield from super().conditions(rule)

    def gates(self) -> tuple[Gate, ...]:
        """None."""
        return ()

    def sources(self) -> tuple[str, ...]:
        """MIRAS."""
        return ("Nadaraya-Watson: MIRAS, arXiv 2504.13173, section 3",)
