"""The memories of a config that have a write strength, and where each one's rate stands."""

from collections.abc import Iterator
from typing import NamedTuple

from miras.mixers.base import HeldMixer
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
    """The rules that are written at a rate, in the order of the pattern.

    They are those of the blocks, and of the mixers that a block's mixer holds.
    """
    for letter in dict.fromkeys(config.letters):
        block = config.block(letter)
        heads = block.heads or config.heads
        whole = HeldMixer(letter, block, config.width, heads)
        rule, mixer = "rule", "architecture"
        if config.blocks:
            rule, mixer = f"{letter}.rule", f"{letter}.mixer"
        yield from _memories(whole, rule, mixer)


def _memories(held: HeldMixer, rule: str, mixer: str) -> Iterator[MemoryOf]:
    """Those of a mixer, with the paths of its rule and of itself."""
    own = held.config
    takes = "rule" in own.mixer.uses and own.rule in own.mixer.rules(own)
    if takes and own.rule.rate is not None and not own.rule.memory.keeps_tokens:
        yield MemoryOf(
            rule,
            own.rule,
            1 if own.exact or own.rule.algorithm.online else own.chunk,
            held.width // held.heads,
            own.layer.lr_by_position,
        )
    for inner in own.mixer.holds(own, held.width, held.heads):
        path = f"{mixer}.{inner.path}"
        yield from _memories(inner, f"{path}.rule", f"{path}.mixer")
