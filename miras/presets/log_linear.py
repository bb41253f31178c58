"""Log-linear memories: a matrix memory for each level of a Fenwick tree.

`architecture=log_linear` does the same with any other matrix rule that is exact at any chunk.
"""

import dataclasses

from miras.mixers import LogLinearMixer
from miras.models.config import LanguageModelConfig
from miras.presets.delta import gated_deltanet
from miras.presets.linear import mamba2
from miras.presets.registry import register

_PAPER = "Guo et al., arXiv 2506.04761, section 3"


def _log_linear(config: LanguageModelConfig) -> LanguageModelConfig:
    return dataclasses.replace(config, architecture=LogLinearMixer())


@register("Log-Linear Mamba-2", _PAPER)
def log_linear_mamba2() -> LanguageModelConfig:
    """Mamba-2 with a memory for each level of a Fenwick tree over the tokens."""
    return _log_linear(mamba2())


@register("Log-Linear Gated DeltaNet", _PAPER)
def log_linear_gated_deltanet() -> LanguageModelConfig:
    """Gated DeltaNet with a memory for each level of a Fenwick tree over the tokens."""
    return _log_linear(gated_deltanet())
