"""The contract of a channel mixer, the half of a block that mixes channels, and its kinds."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from miras.config import Config, require
from miras.config.registry import Registry

if TYPE_CHECKING:
    from flax import nnx


@dataclasses.dataclass(frozen=True)
class ChannelMixer(Config):
    """A kind of channel mixer, with its options.

    To add one: subclass with frozen fields, implement `build`, decorate with
    `@miras.mixers.register_channel("kind")`. `build` returns an `nnx.Module` that maps x
    [B, T, width] to the same shape, each token alone; or None for no channel mixer.

    Attributes:
        kind: the name under which the class is registered.
    """

    registry: ClassVar[Registry["ChannelMixer"]] = Registry(
        "channel mixer", "miras.channels", members="miras.mixers"
    )
    kind: ClassVar[str]

    def build(self, width: int, ratio: float, rngs: "nnx.Rngs") -> Any:
        """The module, or None.

        Args:
            width: of the tokens.
            ratio: the model's `mlp_ratio`, hidden width over width.
            rngs: stream `params`.
        """
        raise NotImplementedError


register_channel = ChannelMixer.registry.register


@register_channel("swiglu")
@dataclasses.dataclass(frozen=True)
class SwiGLUChannel(ChannelMixer):
    """`miras.layers.SwiGLU`.

    Attributes:
        ratio: its hidden width over the width, rounded to a multiple of 8, > 0; None for the
            model's `mlp_ratio`.
    """

    ratio: float | None = None

    def validate(self) -> None:
        """Check the range."""
        require(
            self.ratio is None or self.ratio > 0,
            f"swiglu.ratio={self.ratio} must be positive, or none for the model's mlp_ratio.",
        )

    def build(self, width, ratio, rngs):
        """The layer."""
        from miras.layers.swiglu import SwiGLU  # configs load without flax

        return SwiGLU(width, hidden_width(width, self.ratio or ratio), rngs)


@register_channel("none")
@dataclasses.dataclass(frozen=True)
class NoChannel(ChannelMixer):
    """No channel mixer: the block is x + mixer(norm(x)) alone."""

    def build(self, width, ratio, rngs):
        """None."""
        del width, ratio, rngs


def hidden_width(width: int, ratio: float) -> int:
    """The hidden width for a ratio: a multiple of 8, at least 8."""
    return max(8, round(width * ratio / 8) * 8)
