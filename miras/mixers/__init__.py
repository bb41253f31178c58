"""Token mixers and channel mixers: the two halves of a block.

A token mixer is a kind in a registry, as the four parts of a rule are: `memory`, `attention`,
`memory_caching`, `log_linear`, `tnt`, `self_modifying`, Titans' `mac`, `mag` and `mal`, and
`parallel`.
"""

from miras.mixers.architectures import MACMixer, MAGMixer, MALMixer
from miras.mixers.attention import AttentionMixer
from miras.mixers.base import MixerConfig, TokenMixer, register
from miras.mixers.channel import (
    ChannelMixer,
    MLPChannel,
    NoChannel,
    SwiGLUChannel,
    register_channel,
)
from miras.mixers.cms import CMSChannel
from miras.mixers.log_linear import LogLinearMixer
from miras.mixers.memory import MemoryMixer
from miras.mixers.memory_caching import MemoryCachingMixer
from miras.mixers.parallel import ParallelMixer
from miras.mixers.self_modifying import SelfModifyingMixer
from miras.mixers.tnt import TNTMixer

__all__ = [
    "AttentionMixer",
    "CMSChannel",
    "ChannelMixer",
    "LogLinearMixer",
    "MACMixer",
    "MAGMixer",
    "MALMixer",
    "MLPChannel",
    "MemoryCachingMixer",
    "MemoryMixer",
    "MixerConfig",
    "NoChannel",
    "ParallelMixer",
    "SelfModifyingMixer",
    "SwiGLUChannel",
    "TNTMixer",
    "TokenMixer",
    "register",
    "register_channel",
]
