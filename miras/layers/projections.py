"""Projections: several streams of head vectors from tokens, convolved and activated."""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.config import LayerConfig
from miras.layers.conv import CausalConv, ConvState
from miras.layers.param import Linear


class Projections(nnx.Module):
    """silu(conv(x @ kernel)), where a layer's config has the convolution and the SiLU.

    Args:
        config: of the layer: `conv` and `activation`.
        streams: head vectors a token is projected to.
        width: of the tokens.
        heads: H, of width / heads.
        rngs: stream `params`.
    """

    def __init__(self, config: LayerConfig, streams: int, width: int, heads: int, rngs: nnx.Rngs):
        shape, axes = (streams, heads, width // heads), (None, "heads", None)
        self.linear = Linear((width, *shape), ("embed", *axes), rngs)
        self.conv = CausalConv(shape, axes, config.conv, rngs) if config.conv else None
        self.activation = config.activation

    def init_state(self, batch: int, dtype) -> ConvState | None:
        """The convolution's tail before the first token; None without one."""
        return self.conv.init_state(batch, dtype) if self.conv else None

    def __call__(
        self, x: Array, segments: Array, count: Array | None, tail: ConvState | None
    ) -> tuple[Array, ConvState | None]:
        """Tokens [B, T, width] to [B, T, streams, H, D], and the convolution's tail.

        Args:
            x: tokens.
            segments: ids [B, T], over whose edges nothing is convolved.
            count: [B] or None; see `CausalConv`.
            tail: of the call before.
        """
        mixed = self.linear(x)
        if self.conv is not None:
            tail = self.conv.init_state(x.shape[0], x.dtype) if tail is None else tail
            mixed, tail = self.conv(mixed, segments, count, tail)
        return (jax.nn.silu(mixed) if self.activation == "silu" else mixed), tail


def flat(y: Array) -> Array:
    """Heads side by side: [B, T, H, D] to [B, T, H * D]."""
    return jnp.reshape(y, (*y.shape[:2], -1))
