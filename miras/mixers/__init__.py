"""Token mixers and channel mixers: the two halves of a block.

A token mixer is a kind in a registry, as the four parts of a rule are: `memory`, `attention`, and
Titans' `mac`, `mag` and `mal`.
"""

from miras.mixers.architectures import MACMixer, MAGMixer, MALMixer
from miras.mixers.attention import AttentionMixer
from miras.mixers.base import MixerConfig, TokenMixer, register
from miras.mixers.channel import ChannelMixer, NoChannel, SwiGLUChannel, register_channel
from miras.mixers.memory import MemoryMixer

__all__ = [
    "AttentionMixer",
    "ChannelMixer",
    "MACMixer",
    "MAGMixer",
    "MALMixer",
    "MemoryMixer",
    "MixerConfig",
    "NoChannel",
    "SwiGLUChannel",
    "TokenMixer",
    "register",
    "register_channel",
]
