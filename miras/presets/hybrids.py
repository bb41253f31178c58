"""Hybrids: alternating memory layers and sliding-window attention, as in Samba.

`pattern=MS`, or any other pattern, makes a hybrid of any preset.
"""

import dataclasses

from miras.models.config import LanguageModelConfig
from miras.presets.deep import memora as _memora
from miras.presets.deep import moneta as _moneta
from miras.presets.deep import yaad as _yaad
from miras.presets.delta import gated_deltanet as _gated_deltanet
from miras.presets.linear import mamba2 as _mamba2
from miras.presets.registry import register

_MIRAS = "Behrouz et al., arXiv 2504.13173, section 6"


def _hybrid(config: LanguageModelConfig) -> LanguageModelConfig:
    return dataclasses.replace(config, pattern="MS")


@register("Moneta-H", _MIRAS)
def moneta_h() -> LanguageModelConfig:
    """Moneta with sliding-window attention."""
    return _hybrid(_moneta())


@register("Yaad-H", _MIRAS)
def yaad_h() -> LanguageModelConfig:
    """Yaad with sliding-window attention."""
    return _hybrid(_yaad())


@register("Memora-H", _MIRAS)
def memora_h() -> LanguageModelConfig:
    """Memora with sliding-window attention."""
    return _hybrid(_memora())


@register(
    "Gated DeltaNet-H1",
    "Yang et al., arXiv 2412.06464, section 3.4",
)
def gated_deltanet_h() -> LanguageModelConfig:
    """Gated DeltaNet with sliding-window attention."""
    return _hybrid(_gated_deltanet())


@register(
    "Samba",
    "Ren et al., arXiv 2406.07522, section 2, there with Mamba-1",
)
def samba() -> LanguageModelConfig:
    """Mamba-2 with sliding-window attention."""
    return _hybrid(_mamba2())
