"""HOPE: self-modifying memories, or attention, before a continuum memory system.

`architecture=self_modifying` and `channel=cms` do the same with any other preset.
"""

import dataclasses

from miras import bias, memory, optim, retention
from miras.layers.config import LayerConfig
from miras.mixers import CMSChannel, SelfModifyingMixer
from miras.models.config import LanguageModelConfig
from miras.presets.context import transformer
from miras.presets.registry import register
from miras.rule.rule import Rule

_PAPER = "Nested Learning, arXiv 2512.24695"


@register("HOPE", f"{_PAPER}, self-modifying Titans and CMS")
def hope() -> LanguageModelConfig:
    """Memories that make their own keys, values and gates, by delta gradient descent.

    The paper's memories are x + MLP(x) or matrices; these are Titans' with expansion 1, so that
    five of them have about the weights of one of expansion 4. Chunks, rates and the periods of the
    levels are ours.
    """
    return LanguageModelConfig(
        Rule(
            memory=memory.MLP(depth=2, expansion=1, activation="gelu", norm="layer", eps=0.1),
            bias=bias.L2Loss(),
            retention=retention.L2(decay=0.999),
            algorithm=optim.DGD(lr=0.01, max_lr=0.25),
            read="snapshot",
        ),
        architecture=SelfModifyingMixer(),
        layer=LayerConfig(activation="silu"),
        channel=CMSChannel(),
    )


@register("HOPE-Attention", f"{_PAPER}, attention and CMS")
def hope_attention() -> LanguageModelConfig:
    """Softmax attention with RoPE, and a continuum memory system in place of the MLP."""
    return dataclasses.replace(transformer(), channel=CMSChannel())
