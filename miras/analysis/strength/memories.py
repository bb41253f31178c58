"""The memories of a config that have a write strength, and where each one's rate stands."""

from collections.abc import Iterator
from typing import NamedTuple

from miras.models import LanguageModelConfig
from miras.rule.rule import Rule


class MemoryOf(NamedTuple):
    """One rule of a model, with what its strength depends on.

    Attributes:
        path: of the rule from the model's config, for `miras.override`.
        rule: the four parts.
        chunk: tokens whose writes share a snapshot; 1 under the online rule.
        d: width of a head.
        lr_by_position: whether the layer divides rates by the position in the chunk.
    """

    path: str
    rule: Rule
    chunk: int
    d: int
    lr_by_position: bool


def memories(config: LanguageModelConfig) -> Iterator[MemoryOf]:
    """The rules of a model that are written at a rate."""
    if config.rule.rate is None or config.rule.memory.keeps_tokens:
        return
    online = config.exact or config.rule.algorithm.online
    yield MemoryOf(
        "rule",
        config.rule,
        1 if online else config.chunk,
        config.width // config.heads,
        config.layer.lr_by_position,
    )
