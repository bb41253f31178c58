"""MemoryLayer: a rule as a sequence layer; with a kv memory it is multi-head attention."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.attention.softmax import for_queries
from miras.engine.masking import compact
from miras.layers.config import LayerConfig
from miras.layers.conv import ConvState
from miras.layers.fast_weights import (
    FastWeights,
    Health,
    MemoryConfig,
    last_segment,
    segments_of,
    with_output,
)
from miras.layers.head_sizes import head_sizes
from miras.layers.keys import Associations, Keys
from miras.layers.mimo import MimoProjections
from miras.layers.norm import GroupNorm, RMSNorm
from miras.layers.param import LinearGeneral, param
from miras.layers.projections import (
    Grouped,
    GroupedProjections,
    Projections,
    Separate,
    SeparateProjections,
    flat,
)
from miras.layers.rope import rotate, turn
from miras.layers.turning import CumulativeAngles
from miras.layers.weight_gradients import spread
from miras.sequence.arrays import check_float
from miras.sequence.checks import AnyState


class LayerState(NamedTuple):
    """The state of the layer between calls.

    Attributes:
        memory: the memories, or the cache of a kv memory.
        conv: the last inputs of the convolution; None without one; `Grouped` of grouped heads,
            `Separate` of separate ones.
        position: number of tokens read so far, [B]; None without position embeddings.
        angles: of the last token, [B, H, D / 2]; None unless tokens turn them.
    """

    memory: AnyState
    conv: ConvState | Grouped | Separate | None
    position: Array | None
    angles: Array | None = None


class MemoryLayer(nnx.Module):
    """Projections, convolution, keys, gates, memory, output norm, output gate, projection.

    MIRAS (2504.13173), section 5.3 and figure 2. The gates that the rule's parts declare as learned
    and the initial memory are learned.

    Args:
        memory: the rule and the options of the scan.
        width: of the tokens; a multiple of heads unless the layer gives the widths of a head.
        heads: H memories, each of width / heads unless the layer gives other widths.
        config: of the layer; the defaults of `LayerConfig` if not given.
        weights: builds the memories; called as `FastWeights`, for a module with its `init_state`
            and `__call__`.
        rngs: stream `params`.
    """

    def __init__(
        self,
        memory: MemoryConfig,
        width: int,
        heads: int,
        *,
        config: LayerConfig | None = None,
        weights: Callable[..., Any] = FastWeights,
        rngs: nnx.Rngs,
    ):
        config = config or LayerConfig()
        sizes = head_sizes(config, width, heads)
        self.config, inner = config, heads * sizes.value
        cache = memory.rule.memory.token_cache
        # Persistent tokens have no position: only the plain half of [rotated, plain] matches them.
        # The factor sqrt(2) keeps the scale 1 / sqrt(dk) of the scores.
        self.doubled = config.rope and cache is not None and cache.persistent > 0
        self.keys = Keys(config, memory.rule, width, heads, rngs)
        if config.separate:
            self.qkv = SeparateProjections(config, width, heads, rngs)
        elif config.kv_heads is None:
            self.qkv = Projections(config, self.keys.streams, width, heads, rngs)
        else:
            self.qkv = GroupedProjections(config, width, heads, config.kv_heads, rngs)
        self.memories, own = None, config  # as many as q has heads
        if config.kv_heads is not None and cache is None:
            self.memories = config.memories(heads)
            sized = {"key_width": sizes.key, "value_width": sizes.value}
            own = dataclasses.replace(config, kv_heads=None, **sized)
        count = self.memories or heads
        self.fast = weights(memory, own, width, count, rngs, doubled=self.doubled)
        turns = config.rope and config.rope_angles == "cumulative"
        self.angles = CumulativeAngles(width, heads, rngs) if turns else None
        self.skip = param(jnp.ones(heads), ("heads",)) if config.skip else None
        self.norm = _output_norm(config, heads, sizes.value) if config.output_norm else None
        rank, gate = config.mimo, config.output_gate
        self.gate = LinearGeneral((width, inner), ("embed", "heads"), rngs) if gate else None
        self.mimo = MimoProjections(rank, heads, sizes.value, gate=gate) if rank > 1 else None
        self.out = LinearGeneral((inner, width), ("heads", "embed"), rngs)

    @property
    def _by_position(self) -> bool:
        return self.config.rope and self.angles is None

    def init_state(self, batch: int, dtype=jnp.float32) -> LayerState:
        """The initial state; `dtype` is that of the tokens."""
        return LayerState(
            memory=self.fast.init_state(batch, dtype),
            conv=self.qkv.init_state(batch, dtype),
            position=jnp.zeros(batch, jnp.int32) if self._by_position else None,
            angles=None if self.angles is None else self.angles.init_state(batch, dtype),
        )

    def __call__(
        self,
        x: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: LayerState | None = None,
        segments_at_chunks: bool = False,
        depth: Array | float = 0.0,
        health: bool = False,
    ) -> tuple[Array, LayerState, Health | None]:
        """Apply the layer.

        Args:
            x: tokens [B, T, width], float32 or bfloat16.
            segment_ids: [B, T]; see `miras.scan`.
            mask: [B, T], False for padding, as in `miras.scan`: padding does not enter the
                convolution and does not advance positions or chunks; its outputs are zero.
            state: to continue from; the initial one if None.
            segments_at_chunks: see `miras.backends.base.Alignment`.
            depth: l / (L - 1) of layer l of L, for `decay_by_depth`.
            health: whether to measure it.

        Returns:
            y, as x; the state after the last token; the health, or None.
        """
        check_float("x", x.dtype)
        before = None if state is None else state.memory
        rows = None
        if mask is not None:
            rows = compact(mask)
            x, mask = rows.packed(x), rows.present
            if segment_ids is not None:
                segment_ids = rows.ids(segment_ids, last_segment(before, x))
        count = None if rows is None else rows.count
        segments = segments_of(segment_ids, before, x)
        inputs: Any = None if state is None else state.conv
        mixed, tail = self.qkv(x, segments, count, inputs)
        streams = self.keys(mixed, x)
        if self.mimo is not None:
            streams = streams._replace(v=self.mimo.values(streams.v))
        position = angles = None
        if self.angles is not None:
            start = self.init_state(x.shape[0], x.dtype) if state is None else state
            assert start.angles is not None
            last = last_segment(before, x)[:, None]
            begins = segments != jnp.concatenate([last, segments[:, :-1]], axis=1)
            at, angles = self.angles(
                x, self.fast.rates_of(x), begins=begins, mask=mask, state=start.angles
            )
            streams = _turned(streams, at)
        if self._by_position:
            first = jnp.zeros(x.shape[0], jnp.int32) if state is None else state.position
            assert first is not None
            at = first[:, None] + jnp.arange(x.shape[1])
            base, share = self.config.rope_base, self.config.rope_share
            q, k = (rotate(y, at, base, share) for y in (streams.q, streams.k))
            if self.doubled:
                q = 2**0.5 * jnp.concatenate([q, streams.q], axis=-1)
                k = jnp.concatenate([k, jnp.zeros_like(k)], axis=-1)
            streams = streams._replace(q=q, k=k)
            position = first + (x.shape[1] if count is None else count)
        reads = streams
        if self.memories is not None:  # neighbouring queries read one memory
            heads = self.memories, streams.q.shape[2] // self.memories
            q = streams.q.reshape(*streams.q.shape[:2], *heads, -1)
            reads = streams._replace(q=q)
        y, memory, measured = self.fast(
            reads,
            x,
            segment_ids=segment_ids,
            mask=mask,
            state=before,
            segments_at_chunks=segments_at_chunks,
            depth=depth,
            health=health,
        )
        if self.memories is not None:
            y = y.reshape(*streams.q.shape[:3], -1)
        y = self._output(y, streams.v, x)
        measured = with_output(measured, y, mask)
        after = LayerState(memory, tail, position, angles)
        return y if rows is None else rows.spread(y), after, measured

    def _output(self, y: Array, v: Array, x: Array) -> Array:
        """The layer's output [B, T, width] from reads y, with the values v that were written."""
        if self.skip is not None:
            share = self.skip[...].reshape(-1, *[1] * (y.ndim - 3))
            y = y + spread(share, y) * for_queries(v, y.shape[2])
        z = None if self.gate is None else self.gate(x)
        if self.mimo is not None:
            y = jnp.moveaxis(y, 3, 2)
            y = y if self.norm is None else self.norm(y)
            z = None if z is None else z.reshape(*z.shape[:2], *y.shape[3:])
            return self.out(flat(self.mimo.combined(y, z)))
        if z is not None and self.config.output_order == "gate_first":
            y, z = y * self._gated(z).reshape(y.shape), None
        y = flat(y if self.norm is None else self.norm(y))
        return self.out(y if z is None else y * self._gated(z))

    def _gated(self, z: Array) -> Array:
        by_sigmoid = self.config.output_gate_by == "sigmoid"
        return jax.nn.sigmoid(z) if by_sigmoid else jax.nn.silu(z)


def _output_norm(config: LayerConfig, heads: int, value: int) -> "RMSNorm | GroupNorm":
    # A large eps bounds the gain on outputs near 0, as of a query that matches no key yet: with
    # 1e-6, these make the outer gradient of a matrix memory eight times larger.
    eps = config.output_eps
    if config.output_norm_over == "shared":
        return RMSNorm((value,), (None,), eps=eps)
    if config.output_norm_over == "group":
        return GroupNorm(config.key_heads or heads, heads, value, eps)
    return RMSNorm((heads, value), ("heads", None), eps=eps)


def _turned(streams: Associations, angles: Array) -> Associations:
    """Queries and keys rotated by the angles of their tokens."""
    q, k, v, k_write = streams
    k_write = None if k_write is None else turn(k_write, angles)
    return Associations(turn(q, angles), turn(k, angles), v, k_write)
