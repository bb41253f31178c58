"""Projections: head vectors from tokens, with convolution and activation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array, Floats, HeadVectors, typed
from miras.layers.config import LayerConfig
from miras.layers.conv import CausalConv, ConvState
from miras.layers.param import LinearGeneral


class Projections(nnx.Module):
    """silu(conv(x @ kernel)); the layer's config enables the convolution and the SiLU.

    Args:
        config: of the layer: `conv` and `activation`.
        streams: number of projections per token and head.
        width: of the tokens.
        heads: H, each of width / heads.
        rngs: stream `params`.
        count: number of heads that are projected; H if not given.
    """

    def __init__(
        self,
        config: LayerConfig,
        streams: int,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
        count: int | None = None,
    ):
        shape, axes = (streams, count or heads, width // heads), (None, "heads", None)
        self.linear = LinearGeneral((width, *shape), ("embed", *axes), rngs)
        self.conv = CausalConv(shape, axes, config.conv, rngs) if config.conv else None
        self.activation = config.activation

    def init_state(self, batch: int, dtype) -> ConvState | None:
        """The initial state of the convolution; None without one."""
        return self.conv.init_state(batch, dtype) if self.conv else None

    def __call__(
        self, x: Array, segments: Array, count: Array | None, state: ConvState | None
    ) -> tuple[Array, ConvState | None]:
        """Map tokens [B, T, width] to [B, T, streams, H, D] and the convolution's state.

        Args:
            x: tokens.
            segments: ids [B, T]; the convolution does not cross their boundaries.
            count: [B] or None; see `CausalConv`.
            state: of the convolution before x.
        """
        mixed = self.linear(x)
        if self.conv is not None:
            state = self.conv.init_state(x.shape[0], x.dtype) if state is None else state
            mixed, state = self.conv(mixed, segments, count, state)
        return (jax.nn.silu(mixed) if self.activation == "silu" else mixed), state


class Grouped(NamedTuple):
    """What grouped heads have of queries, and of keys and values."""

    q: Any
    kv: Any


class GroupedProjections(nnx.Module):
    """Projections of which keys and values have fewer heads than queries.

    Args:
        config: of the layer.
        width: of the tokens.
        heads: H, each of width / heads.
        kv_heads: K, a divisor of H.
        rngs: stream `params`.
    """

    def __init__(self, config: LayerConfig, width: int, heads: int, kv_heads: int, rngs: nnx.Rngs):
        self.q = Projections(config, 1, width, heads, rngs)
        self.kv = Projections(config, 2, width, heads, rngs, kv_heads)

    def init_state(self, batch: int, dtype) -> Grouped:
        """The initial states of the convolutions."""
        return Grouped(self.q.init_state(batch, dtype), self.kv.init_state(batch, dtype))

    def __call__(
        self, x: Array, segments: Array, count: Array | None, state: Grouped | None
    ) -> tuple[Grouped, Grouped]:
        """Map tokens [B, T, width] to q [B, T, 1, H, D] and kv [B, T, 2, K, D]; see `Projections`.

        The state is that of the convolutions.
        """
        before = Grouped(None, None) if state is None else state
        q, of_q = self.q(x, segments, count, before.q)
        kv, of_kv = self.kv(x, segments, count, before.kv)
        return Grouped(q, kv), Grouped(of_q, of_kv)


@typed
def flat(y: HeadVectors) -> Floats:
    """Concatenate heads: [B, T, H, D] to [B, T, H * D]."""
    return jnp.reshape(y, (*y.shape[:2], -1))
