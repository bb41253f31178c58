"""SwiGLU: the feed-forward half of a block."""

import jax
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import LinearGeneral


class SwiGLU(nnx.Module):
    """(silu(x @ gate) * (x @ up)) @ down (arXiv 2002.05202).

    Args:
        width: of the tokens.
        hidden: width of the hidden layer.
        rngs: stream `params`.
    """

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.gate = LinearGeneral((width, hidden), ("embed", "mlp"), rngs)
        self.up = LinearGeneral((width, hidden), ("embed", "mlp"), rngs)
        self.down = LinearGeneral((hidden, width), ("mlp", "embed"), rngs)

    def __call__(self, x: Array) -> Array:
        """Map x [..., width] to [..., width]."""
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))
