"""MemoryLayer: a rule as a sequence layer; with a kv memory it is multi-head attention."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.attention.softmax import for_queries
from miras.engine.masking import CompactRows, compact
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
from miras.layers.norm import NORMS, GroupNorm, LayerNorm, RMSNorm
from miras.layers.output_gate import LowRankGate
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
from miras.layers.token_shift import TokenShift
from miras.layers.turning import CumulativeAngles
from miras.layers.value_residual import ValueResidual
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
        shift: the last token, of the token shift; None without one.
    """

    memory: AnyState
    conv: ConvState | Grouped | Separate | None
    position: Array | None
    angles: Array | None = None
    shift: ConvState | None = None


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
        names = ("q", "k", "v", "gates", *self._further_streams(config))
        self.shift = TokenShift(names, width) if config.token_shift else None
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
        of = (config.value_rank or config.gate_rank, sizes.values, sizes.value)
        self.residual = ValueResidual(width, *of, rngs) if config.value_residual else None
        shape = (heads, sizes.key)
        self.bonus = param(jnp.zeros(shape), ("heads", None)) if config.bonus else None
        turns = config.rope and config.rope_angles == "cumulative"
        self.angles = CumulativeAngles(width, heads, rngs) if turns else None
        self.skip = param(jnp.ones(heads), ("heads",)) if config.skip else None
        self.norm = _output_norm(config, heads, sizes.value) if config.output_norm else None
        rank, gate = config.mimo, config.output_gate
        self.gate = _output_gate(config, width, inner, rngs) if gate else None
        self.mimo = MimoProjections(rank, heads, sizes.value, gate=gate) if rank > 1 else None
        self.out = LinearGeneral((inner, width), ("heads", "embed"), rngs)

    @staticmethod
    def _further_streams(config: LayerConfig) -> list[str]:
        """Names of the streams of tokens, besides those of queries, keys, values and gates."""
        rates = ["rates"] if config.keys == "rwkv7" else []
        return rates + (["output"] if config.output_gate else [])

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
            shift=None if self.shift is None else self.shift.init_state(batch, dtype),
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
        values: Array | None = None,
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
            values: of the model's first layer, from its `first_values`, for `value_residual`; its
                own if None.

        Returns:
            y, as x; the state after the last token; the health, or None.
        """
        check_float("x", x.dtype)
        before = None if state is None else state.memory
        made = self._projected(x, segment_ids, mask, state)
        rows, segments, of, mixed = made.rows, made.segments, made.of, made.mixed
        if rows is not None:
            x, mask = made.x, rows.present
            segment_ids = None if segment_ids is None else segments
        count = None if rows is None else rows.count
        if self.residual is not None and values is not None:
            first = values if rows is None else rows.packed(values)
            mixed = mixed._replace(v=self.residual(mixed.v, first, of["v"]))
        streams = self.keys(mixed, of["rates"])
        if self.mimo is not None:
            streams = streams._replace(v=self.mimo.values(streams.v))
        position = angles = None
        if self.angles is not None:
            start = self.init_state(x.shape[0], x.dtype) if state is None else state
            assert start.angles is not None
            last = last_segment(before, x)[:, None]
            begins = segments != jnp.concatenate([last, segments[:, :-1]], axis=1)
            at, angles = self.angles(
                x, self.fast.rates_of(of["gates"]), begins=begins, mask=mask, state=start.angles
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
            of["gates"],
            segment_ids=segment_ids,
            mask=mask,
            state=before,
            segments_at_chunks=segments_at_chunks,
            depth=depth,
            health=health,
        )
        if self.memories is not None:
            y = y.reshape(*streams.q.shape[:3], -1)
        y = self._output(y, streams, of["output"])
        measured = with_output(measured, y, mask)
        after = LayerState(memory, made.tail, position, angles, made.shift)
        return y if rows is None else rows.spread(y), after, measured

    def first_values(
        self,
        x: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: LayerState | None = None,
    ) -> Array:
        """What the layers of a model take as `values` if this is the first, [B, T, heads, D].

        The arguments are those of a call. Masked tokens have zeros.
        """
        made = self._projected(x, segment_ids, mask, state)
        return made.mixed.v if made.rows is None else made.rows.spread(made.mixed.v)

    def _projected(
        self, x: Array, segment_ids: Array | None, mask: Array | None, state: LayerState | None
    ) -> "_Projected":
        """Queries, keys and values before their norms, and what they are made of."""
        before = None if state is None else state.memory
        rows = None if mask is None else compact(mask)
        if rows is not None:
            x = rows.packed(x)
            if segment_ids is not None:
                segment_ids = rows.ids(segment_ids, last_segment(before, x))
        count = None if rows is None else rows.count
        segments = segments_of(segment_ids, before, x)
        of, shift = _Streams(x), None
        if self.shift is not None:
            shifted, shift = self.shift(x, segments, count, None if state is None else state.shift)
            of.update(shifted)
        inputs: Any = None if state is None else state.conv
        tokens: Any = x if self.shift is None else of
        mixed, tail = self.qkv(tokens, segments, count, inputs)
        return _Projected(rows, x, segments, of, mixed, tail, shift)

    def _output(self, y: Array, streams: Associations, x: Array) -> Array:
        """The layer's output [B, T, width] from reads y, with the streams that were written."""
        v = streams.v
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
        y = y if self.norm is None else self.norm(y)
        if self.bonus is not None:
            y = y + _own(streams, self.bonus[...]).astype(y.dtype)
        y = flat(y)
        return self.out(y if z is None else y * self._gated(z))

    def _gated(self, z: Array) -> Array:
        by = {"sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu, "none": lambda z: z}
        return by[self.config.output_gate_by](z)


class _Streams(dict[str, Array]):
    """Tokens by the stream that is made of them; those of the call where there are no others."""

    def __init__(self, x: Array):
        super().__init__()
        self.x = x

    def __missing__(self, name: str) -> Array:
        return self.x


class _Projected(NamedTuple):
    """What a call has before the norms of queries and keys; rows are compact with a mask.

    Attributes:
        rows: the compact rows; None without a mask.
        x: the tokens.
        segments: their ids, [B, T].
        of: tokens by the stream that is made of them.
        mixed: the projections.
        tail: the state of the convolutions after the last token.
        shift: that of the token shift; None without one.
    """

    rows: CompactRows | None
    x: Array
    segments: Array
    of: _Streams
    mixed: Any
    tail: Any
    shift: ConvState | None


def _own(streams: Associations, u: Array) -> Array:
    """sum_j (sum_i u_i q_i k_ij) v_j over a token's associations j, [B, T, H, D] float32."""
    q, k, v, k_write = streams
    k = k if k_write is None else k_write
    if k.ndim == q.ndim:
        k, v = k[:, :, :, None], v[:, :, :, None]
    wide = jnp.promote_types(jnp.float32, q.dtype)
    q, k, v = q.astype(wide), for_queries(k, q.shape[2]), for_queries(v, q.shape[2])
    share = jnp.einsum("bthd,bthjd->bthj", q * u, k.astype(wide))
    return jnp.einsum("bthj,bthjd->bthd", share, v.astype(wide))


def _output_gate(
    config: LayerConfig, width: int, inner: int, rngs: nnx.Rngs
) -> LinearGeneral | LowRankGate:
    if config.output_gate_rank is not None:
        return LowRankGate(width, config.output_gate_rank, inner, rngs)
    return LinearGeneral((width, inner), ("embed", "heads"), rngs)


def _output_norm(config: LayerConfig, heads: int, value: int) -> "RMSNorm | LayerNorm | GroupNorm":
    # A large eps bounds the gain on outputs near 0, as of a query that matches no key yet: with
    # 1e-6, these make the outer gradient of a matrix memory eight times larger.
    eps = config.output_eps
    norm = NORMS[config.output_norm_kind]
    if config.output_norm_over == "shared":
        return norm((value,), (None,), eps=eps)
    if config.output_norm_over == "group":
        return GroupNorm(config.key_heads or heads, heads, value, eps)
    return norm((heads, value), ("heads", None), eps=eps)


def _turned(streams: Associations, angles: Array) -> Associations:
    """Queries and keys rotated by the angles of their tokens."""
    q, k, v, k_write = streams
    k_write = None if k_write is None else turn(k_write, angles)
    return Associations(turn(q, angles), turn(k, angles), v, k_write)
