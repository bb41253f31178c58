"""BlockConfig: the config of a block: a token mixer and a channel mixer."""

import dataclasses
from typing import cast

from miras.mixers import ChannelMixer, MixerConfig


@dataclasses.dataclass(frozen=True)
class BlockConfig(MixerConfig):
    """x + mixer(norm(x)), then x + channel(norm(x)).

    Attributes:
        channel: the channel mixer.
    """

    channel: ChannelMixer = cast(ChannelMixer, "swiglu")
