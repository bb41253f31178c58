"""The channel mixer `cms`: a continuum memory system."""

import dataclasses

from miras.config import require
from miras.mixers.channel import ChannelMixer, hidden_width, register_channel


@register_channel("cms")
@dataclasses.dataclass(frozen=True)
class CMSChannel(ChannelMixer):
    """MLPs in a row, of which level l is updated once every C_l tokens of training.

        y = MLP_L(... MLP_1(x)) - x,   MLP_l(z) = z + gelu(z A_l) B_l

    Continuum memory system, Nested Learning (2512.24695). The levels are parameters of the model,
    which the *outer* loss trains. `miras.train` accumulates their gradients over C_l tokens, takes
    their mean, and makes one update of the outer optimiser, whose state (Adam's moments) counts
    those updates; between two of them the level stays as it is. **There is no test-time update**: a
    trained model reads its levels and never writes them, so a block with `cms` has no more state
    than one with `swiglu`.

    Tokens of training are all those of the batches, batch * sequence * accumulate an update. An
    update of the model is the shortest span: C_l is rounded up to whole updates, so levels with a
    shorter C_l are updated every time. A span that the run's end cuts makes no update.

    Attributes:
        periods: C_l of each level, from the first that a token meets; each >= 1. The paper sweeps
            512 and 2048 within one sequence; the defaults here suit batches of thousands of tokens.
        ratio: hidden width of each level over the width, rounded to a multiple of 8, > 0; None for
            the model's `mlp_ratio`. A level has two thirds of the parameters of a SwiGLU of its
            hidden width.
    """

    periods: tuple[int, ...] = (1, 8192, 65536)
    ratio: float | None = None

    def validate(self) -> None:
        """Check the ranges."""
        require(
            len(self.periods) >= 1 and all(period >= 1 for period in self.periods),
            f"cms.periods={list(self.periods)} must be at least one number of tokens, each at "
            "least 1, as in channel.periods=[1,8192].",
        )
        require(
            self.ratio is None or self.ratio > 0,
            f"cms.ratio={self.ratio} must be positive, or none for the model's mlp_ratio.",
        )

    def build(self, width, ratio, rngs):
        """The chain."""
        from miras.layers.mlp_chain import MLPChain  # configs load without flax

        return MLPChain(width, hidden_width(width, self.ratio or ratio), self.periods, rngs)
