"""BlockConfig: the config of a block: a token mixer and a channel mixer."""

import dataclasses
from typing import Literal, cast

from miras.config import added
from miras.mixers import ChannelMixer, MixerConfig, TokenMixer
from miras.mixers.names import NamedConfigs


@dataclasses.dataclass(frozen=True)
class BlockConfig(MixerConfig):
    """x + mixer(norm(x)), then x + channel(norm(x)).

    As the value of a field, it may be given as the name of a preset, whose block of one letter it
    then is, as a kind of token mixer, or as a dict of fields.

    Attributes:
        channel: the channel mixer.
        norm: "pre" as above; "post" for x + norm(mixer(x)), then x + norm(channel(x)).
    """

    channel: ChannelMixer = cast(ChannelMixer, "swiglu")
    norm: Literal["pre", "post"] = added("pre")


BlockConfig.registry = NamedConfigs(BlockConfig, TokenMixer.registry)
