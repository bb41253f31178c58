"""A global memory and local ones that start anew in each shard (TNT).

`architecture=tnt` does the same with any other preset's rule, and `architecture.local_chunks=[4,8]`
and the other fields of `miras.mixers.TNTMixer` its variants.
"""

import dataclasses

from miras.mixers import TNTMixer
from miras.models.config import LanguageModelConfig
from miras.optim import GD
from miras.presets.deep import titans_lmm, ttt_mlp, yaad
from miras.presets.registry import register

_PAPER = "arXiv 2511.07343"


def _tnt(config: LanguageModelConfig) -> LanguageModelConfig:
    """The rule is that of the global memory."""
    tnt, rule = TNTMixer(), dataclasses.replace(config.rule, read="snapshot")
    return dataclasses.replace(config, rule=rule, chunk=tnt.global_chunk, architecture=tnt)


@register("TNT with Titans", f"TNT, {_PAPER}, section 4")
def tnt_titans() -> LanguageModelConfig:
    """Titans' memory in chunks of 64, and one in chunks of 8 that starts anew every 64 tokens."""
    return _tnt(titans_lmm())


@register("TNT with TTT", f"TNT, {_PAPER}, section 4")
def tnt_ttt() -> LanguageModelConfig:
    """TTT's MLP in the same two roles, by gradient descent.

    The steps of a chunk are not averaged: TTT's learned correction has a number for each position
    in the chunk, and another chunk would need other parameters.
    """
    config = ttt_mlp()
    rule = dataclasses.replace(config.rule, algorithm=GD(lr=0.05, max_lr=0.5))
    return _tnt(dataclasses.replace(config, rule=rule))


@register("TNT with Yaad", f"TNT, {_PAPER}, section 4")
def tnt_yaad() -> LanguageModelConfig:
    """Yaad in the same two roles."""
    return _tnt(yaad())
