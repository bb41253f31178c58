"""Cached memories, which also read what they were at the ends of earlier segments.

`architecture=memory_caching` does the same with any other preset's memory, and
`architecture.combine=soup` and the other fields of `miras.mixers.MemoryCachingMixer` its variants.
"""

import dataclasses

from miras.mixers import MemoryCachingMixer
from miras.models.config import LanguageModelConfig
from miras.presets.deep import moneta, titans_lmm
from miras.presets.registry import register

_PAPER = "arXiv 2602.24281"


def _cached(config: LanguageModelConfig) -> LanguageModelConfig:
    return dataclasses.replace(config, architecture=MemoryCachingMixer())


@register("Titans with memory caching", f"Memory Caching, {_PAPER}, gated residual memory")
def titans_caching() -> LanguageModelConfig:
    """Titans' memory, gated with its checkpoints after each 64 tokens."""
    return _cached(titans_lmm())


@register("Moneta with memory caching", f"Memory Caching, {_PAPER}, gated residual memory")
def moneta_caching() -> LanguageModelConfig:
    """Moneta, gated with its checkpoints after each 64 tokens."""
    return _cached(moneta())
