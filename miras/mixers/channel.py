"""The contract of a channel mixer, the half of a block that mixes channels, and its kinds."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from miras.config import Config, require
from miras.config.registry import Registry

if TYPE_CHECKING:
    from flax import nnx


@dataclasses.dataclass(frozen=True)
class ChannelMixer(Config):
    """A kind of channel mixer, with its options.

    To add one: subclass with frozen fields, implement `build`, decorate with
    `@miras.mixers.register_channel("kind")`. `build` returns an `nnx.Module` that maps x
    [B, T, width] to the same shape, each token alone; or None for no channel mixer. One that also
    reads earlier tokens sets `has_state`, and has the methods `init_state(batch, dtype)` and
    `__call__(x, *, segment_ids, mask, state) -> (y, state)` of `miras.layers.mlp.ShiftedMLP`.

    Attributes:
        kind: the name under which the class is registered.
    """

    registry: ClassVar[Registry["ChannelMixer"]] = Registry(
        "channel mixer", "miras.channels", members="miras.mixers"
    )
    kind: ClassVar[str]

    @property
    def has_state(self) -> bool:
        """Whether the module reads earlier tokens, which it keeps in a state."""
        return False

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


@register_channel("mlp")
@dataclasses.dataclass(frozen=True)
class MLPChannel(ChannelMixer):
    """act(x @ up) @ down (`miras.layers.mlp.FeedForward`), with 2/3 of the parameters of a SwiGLU.

    With `token_shift` x_t is mixed with x_{t-1}, per channel; with "squared_relu" this is the
    channel mixing of RWKV-7 (2503.14456).

    Attributes:
        activation: "squared_relu" (2109.08668), "relu", "gelu" or "silu".
        ratio: hidden width over the width, rounded to a multiple of 8, > 0; None for the model's
            `mlp_ratio`.
        token_shift: see `miras.layers.token_shift.TokenShift`.
    """

    activation: Literal["squared_relu", "relu", "gelu", "silu"] = "squared_relu"
    ratio: float | None = None
    token_shift: bool = False

    def validate(self) -> None:
        """Check the range."""
        require(
            self.ratio is None or self.ratio > 0,
            f"mlp.ratio={self.ratio} must be positive, or none for the model's mlp_ratio.",
        )

    @property
    def has_state(self) -> bool:
        """With `token_shift`."""
        return self.token_shift

    def build(self, width, ratio, rngs):
        """The layer."""
        from miras.layers.mlp import FeedForward, ShiftedMLP  # configs load without flax

        mlp = FeedForward(width, hidden_width(width, self.ratio or ratio), self.activation, rngs)
        return ShiftedMLP(width, mlp) if self.token_shift else mlp


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
