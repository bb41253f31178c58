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
    """The rules of a model's blocks that are written at a rate, in the order of the pattern.

    Rules inside a mixer that holds other mixers keep their own rates.
    """
    for letter in dict.fromkeys(config.letters):
        block = config.block(letter)
        rule = block.rule
        takes = "rule" in block.mixer.uses and block.mixer.rules(block) == (rule,)
        if not takes or rule.rate is None or rule.memory.keeps_tokens:
            continue
        online = block.exact or rule.algorithm.online
        yield MemoryOf(
            f"{letter}.rule" if config.blocks else "rule",
            rule,
            1 if online else block.chunk,
            config.width // (block.heads or config.heads),
            block.layer.lr_by_position,
        )
