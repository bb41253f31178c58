"""The memories of a model whose chunk the config sets: in blocks, and in mixers within mixers."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from miras.layers import LayerConfig
from miras.mixers import MixerConfig, TokenMixer
from miras.mixers.base import HeldMixer
from miras.models.config import LanguageModelConfig
from miras.rule.rule import Rule


class ChunkedMemory(NamedTuple):
    """A rule, its options and its layer, named by its block and its path in the block's mixer."""

    name: str
    rule: Rule
    chunk: int
    refine: int
    exact: bool
    layer: LayerConfig


def chunked(config: LanguageModelConfig) -> tuple[int, ...]:
    """Places in the pattern of the blocks that have such a memory."""
    letters = {memory.name[0] for memory in memories(config)}
    return tuple(n for n, letter in enumerate(config.letters) if letter in letters)


def memories(config: LanguageModelConfig) -> Iterator[ChunkedMemory]:
    """The memories of each block, in the order of the pattern."""
    for letter in dict.fromkeys(config.letters):
        block = config.block(letter)
        heads = block.heads or config.heads
        yield from _memories(HeldMixer(letter, block, config.width, heads))


def _memories(held: HeldMixer) -> Iterator[ChunkedMemory]:
    own = held.config
    if "chunk" in own.mixer.uses and own.rule in own.mixer.rules(own):
        yield ChunkedMemory(held.path, own.rule, own.chunk, own.refine, own.exact, own.layer)
    for inner in own.mixer.holds(own, held.width, held.heads):
        yield from _memories(inner._replace(path=f"{held.path}.{inner.path}"))


def with_options(config: LanguageModelConfig, **options: Any) -> LanguageModelConfig:
    """The config with options of the scan in every block that uses them, and in its mixers."""
    blocks = {letter: _changed(block, options) for letter, block in config.blocks.items()}
    fields: dict[str, Any] = {"blocks": blocks}
    if "M" in config.letters and "M" not in config.blocks and "chunk" in config.mixer.uses:
        fields |= options
    if isinstance(config.architecture, TokenMixer):
        fields["architecture"] = _with_held(config.architecture, options)
    return dataclasses.replace(config, **fields)


def _changed(config: Any, options: dict[str, Any]) -> Any:
    own = options if "chunk" in config.mixer.uses else {}
    return dataclasses.replace(config, mixer=_with_held(config.mixer, options), **own)


def _with_held(mixer: TokenMixer, options: dict[str, Any]) -> TokenMixer:
    """The mixer with options in the configs that it holds."""

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(changed(item) for item in value)
        if isinstance(value, MixerConfig):
            return _changed(value, options)
        return _with_held(value, options) if isinstance(value, TokenMixer) else value

    fields = {f.name: changed(getattr(mixer, f.name)) for f in dataclasses.fields(mixer)}
    return dataclasses.replace(mixer, **fields)
