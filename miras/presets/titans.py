"""Titans with attention: MAC, MAG and MAL with the memory of `titans_lmm`.

`architecture=mac` does the same with any other preset's memory: `override(preset("yaad"),
"architecture=mac")`.
"""

import dataclasses
from typing import Literal

from miras.layers import AttentionConfig
from miras.models.config import LanguageModelConfig
from miras.presets.deep import titans_lmm
from miras.presets.registry import register

_PAPER = "Behrouz et al., arXiv 2501.00663"


def _titans(architecture: Literal["mac", "mag", "mal"]) -> LanguageModelConfig:
    attention = AttentionConfig(window=64, segment=64, persistent=4)
    return dataclasses.replace(titans_lmm(), architecture=architecture, attention=attention)


@register(
    "Titans (MAC)",
    f"{_PAPER}, eq. 21-25",
)
def titans_mac() -> LanguageModelConfig:
    """Memory as a context, in segments of 64 tokens."""
    return _titans("mac")


@register("Titans (MAG)", f"{_PAPER}, eq. 26-28")
def titans_mag() -> LanguageModelConfig:
    """Memory as a gate on sliding-window attention."""
    return _titans("mag")


@register("Titans (MAL)", f"{_PAPER}, eq. 29-31")
def titans_mal() -> LanguageModelConfig:
    """Memory as the layer before sliding-window attention."""
    return _titans("mal")
