"""LowRankGate: the logits of an output gate through a bottleneck."""

import jax
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import LinearGeneral


class LowRankGate(nnx.Module):
    """sigmoid(x @ down) @ up, the output gate of RWKV-7 (2503.14456, eq. 16).

    Args:
        width: of the tokens.
        rank: of the bottleneck.
        inner: width of the heads together.
        rngs: stream `params`.
    """

    def __init__(self, width: int, rank: int, inner: int, rngs: nnx.Rngs):
        self.down = LinearGeneral((width, rank), ("embed", None), rngs)
        self.up = LinearGeneral((rank, inner), (None, "heads"), rngs)

    def __call__(self, x: Array) -> Array:
        """Map x [..., width] to [..., inner]."""
        return self.up(jax.nn.sigmoid(self.down(x)))
