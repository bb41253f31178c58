"""Projections: head vectors from tokens, with convolution and activation."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array, Floats, HeadVectors, typed
from miras.layers.config import LayerConfig
from miras.layers.conv import CausalConv, ConvState
from miras.layers.head_sizes import head_sizes
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
        head: their width; width / heads if not given.
    """

    def __init__(
        self,
        config: LayerConfig,
        streams: int,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
        count: int | None = None,
        head: int | None = None,
    ):
        shape, axes = (streams, count or heads, head or width // heads), (None, "heads", None)
        self.linear = LinearGeneral((width, *shape), ("embed", *axes), rngs)
        conv = functools.partial(CausalConv, shape, axes, bias=config.conv_bias)
        self.conv = conv(config.conv, rngs) if config.conv else None
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


class Separate(NamedTuple):
    """What queries, keys and values that differ in size have each."""

    q: Any
    k: Any
    v: Any


class SeparateProjections(nnx.Module):
    """Projections of queries, keys and values, each with its own heads and widths.

    Args:
        config: of the layer.
        width: of the tokens.
        heads: H.
        rngs: stream `params`.
    """

    def __init__(self, config: LayerConfig, width: int, heads: int, rngs: nnx.Rngs):
        sizes = head_sizes(config, width, heads)
        self.q = Projections(config, 1, width, heads, rngs, sizes.queries, sizes.key)
        self.k = Projections(config, 1, width, heads, rngs, sizes.keys, sizes.key)
        self.v = Projections(config, 1, width, heads, rngs, sizes.values, sizes.value)

    def init_state(self, batch: int, dtype) -> Separate:
        """The initial states of the convolutions."""
        return Separate(*(part.init_state(batch, dtype) for part in (self.q, self.k, self.v)))

    def __call__(
        self,
        x: Array | Mapping[str, Array],
        segments: Array,
        count: Array | None,
        state: Separate | None,
    ) -> tuple[Separate, Separate]:
        """Map tokens [B, T, width] to q, k and v [B, T, heads, D], each with its own sizes.

        The tokens may be others for each of "q", "k" and "v". The state is that of the
        convolutions; see `Projections`.
        """
        before = Separate(None, None, None) if state is None else state
        of = x if isinstance(x, Mapping) else dict.fromkeys("qkv", x)
        parts = zip("qkv", (self.q, self.k, self.v), before)
        made = [part(of[name], segments, count, tail) for name, part, tail in parts]
        return Separate(*(y[:, :, 0] for y, _ in made)), Separate(*(tail for _, tail in made))


@typed
def flat(y: HeadVectors) -> Floats:
    """Concatenate heads: [B, T, H, D] to [B, T, H * D]."""
    return jnp.reshape(y, (*y.shape[:2], -1))
