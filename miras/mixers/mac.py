"""MAC: Titans' memory as a context; `titans` has its equations, 21 to 25.

A segment is computed in parallel, and retrieves from the memory before it. If a call or a document
does not begin at the start of a segment, tokens are read one by one, with the keys and values of
the current segment cached.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array, Weights
from miras.attention.dispatch import fused
from miras.attention.softmax import attend, in_front
from miras.engine import saved
from miras.engine.masking import compact, where
from miras.engine.state import State, split_fixed
from miras.engine.trajectory import dual_start
from miras.layers.config import AttentionConfig, LayerConfig
from miras.layers.conv import ConvState
from miras.layers.fast_weights import FastWeights, Health, MemoryConfig, segments_of, with_output
from miras.layers.keys import Keys
from miras.layers.norm import RMSNorm
from miras.layers.param import LinearGeneral, param
from miras.layers.projections import Projections, flat
from miras.layers.rope import rotate
from miras.mixers.titans import Gating
from miras.sequence.arrays import check_float


class MACState(NamedTuple):
    """The state of MAC between calls.

    Attributes:
        memory: state of the memories.
        start: dual states of the memories before the current segment, leaves [B, H, ...].
        k: [B, segment, 2, K, D], keys of h and of x in the current segment.
        v: values, as k.
        visible: [B, segment], which of them queries may attend to.
        count: [B], number of tokens of the current segment read so far.
        query: last inputs x of the convolution on queries.
        write: last inputs y of the convolution on keys and values.
    """

    memory: State
    start: Weights
    k: Array
    v: Array
    visible: Array
    count: Array
    query: ConvState | None
    write: ConvState | None


class SegmentTokens(NamedTuple):
    """Tokens x [B, n, width] with segment ids [B, n] and a mask [B, n], or None.

    Rows are padded at the end; the mask is False for padding.
    """

    x: Array
    ids: Array
    mask: Array | None


class MAC(nnx.Module):
    """Memory as a context (Titans, 2501.00663, section 4.1).

    Args:
        memory: the rule and the options of the scan; its chunk divides the segment.
        layer: how keys, values and gates are projected.
        attention: segment, window within it, and persistent tokens.
        width: of the tokens.
        heads: H, of memories and of attention.
        rngs: stream `params`.
    """

    def __init__(
        self,
        memory: MemoryConfig,
        layer: LayerConfig,
        attention: AttentionConfig,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
    ):
        self.config, self.attention, self.heads = layer, attention, heads
        self.keys = Keys(layer, memory.rule, width, heads, rngs)
        self.query = Projections(layer, 1, width, heads, rngs)
        self.write = Projections(layer, self.keys.streams - 1, width, heads, rngs)
        self.fast = FastWeights(memory, layer, width, heads, rngs)
        head, axes = width // heads, ("heads", None, None)
        self.recalled = RMSNorm((width,), ("embed",))
        self.q = LinearGeneral((width, heads, head), ("embed", "heads", None), rngs)
        self.kv_heads = attention.kv_heads or heads
        axes_of_kv = ("embed", None, "heads", None)
        self.kv = LinearGeneral((width, 2, self.kv_heads, head), axes_of_kv, rngs)
        self.out = LinearGeneral((width, width), ("heads", "embed"), rngs)
        front = attention.rule().init_raw(rngs.params(), head, head, self.kv_heads)
        self.persistent = nnx.Dict({name: param(leaf, axes) for name, leaf in front.items()})
        self.gating = Gating(width)

    def init_state(self, batch: int, dtype=jnp.float32) -> MACState:
        """The initial state."""
        memory = self.fast.init_state(batch, dtype)
        assert isinstance(memory, State)
        cached = (batch, self.attention.segment)
        kept = jnp.zeros((*cached, 2, self.kv_heads, self.q.kernel.shape[-1]), dtype)
        return MACState(
            memory=memory,
            start=memory.A,
            k=kept,
            v=kept,
            visible=jnp.zeros(cached, bool),
            count=jnp.zeros(batch, jnp.int32),
            query=self.query.init_state(batch, dtype),
            write=self.write.init_state(batch, dtype),
        )

    def __call__(
        self,
        x: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: MACState | None = None,
        segments_at_chunks: bool = False,
        depth: Array | float = 0.0,
        health: bool = False,
    ) -> tuple[Array, MACState, Health | None]:
        """As `MemoryLayer.__call__`; `segments_at_chunks` promises documents at segment starts."""
        check_float("x", x.dtype)
        start = self.init_state(x.shape[0], x.dtype) if state is None else state
        ids = segments_of(segment_ids, start.memory, x)
        promised = state is None and (segment_ids is None or (segments_at_chunks and mask is None))
        if mask is None:
            return self._packed(SegmentTokens(x, ids, None), start, promised, depth, health)
        rows = compact(mask)
        token = SegmentTokens(rows.packed(x), rows.ids(ids, start.memory.segment), rows.present)
        y, after, measured = self._packed(token, start, promised, depth, health)
        return rows.spread(y), after, measured

    def _packed(self, token: SegmentTokens, start: MACState, promised: bool, depth, health: bool):
        """Rows padded at the end; `promised`: documents begin at the starts of segments."""
        _, ids, mask = token
        length, segment = ids.shape[1], self.attention.segment
        by_segment = functools.partial(self._by_segment, token, depth=depth, health=health)
        if promised:
            y, after, measured = by_segment(start)
        elif length == 1:
            y, after, measured = self._by_token(token, start, depth, health)
        else:
            before = jnp.concatenate([start.memory.segment[:, None], ids[:, :-1]], axis=1)
            inside = (ids != before) & (jnp.arange(length) % segment != 0)
            at_start = start.count % segment == 0
            if mask is not None:
                at_start |= ~mask[:, 0]  # a row without tokens
            aligned = jnp.all(at_start) & ~jnp.any(inside)
            y, after, measured = jax.lax.cond(
                aligned,
                by_segment,
                lambda start: self._by_token(token, start, depth, health),
                start,
            )
        return y, after, with_output(measured, y, mask)

    def _by_segment(self, token: SegmentTokens, start: MACState, *, depth, health: bool):
        """Whole segments from a segment's start, and the rest of the last one."""
        batch, length, width = token.x.shape
        segment = self.attention.segment
        count = length // segment
        outputs, measures, carry = [], [], start

        # The backward pass recomputes a segment from the memory before it: all that it computes
        # would take several times the space. In a loop, nothing is merged with its recomputation.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def piece(carry: MACState, token: SegmentTokens):
            after, y, measured = self._piece(token, carry, depth, health, whole=True)
            return after, (y, measured)

        if count:
            cut = jax.tree.map(lambda z: z[:, : count * segment], token)
            stacked = jax.tree.map(
                lambda z: jnp.moveaxis(z.reshape(batch, count, segment, *z.shape[2:]), 1, 0), cut
            )
            carry, (y, measured) = jax.lax.scan(piece, carry, stacked)
            outputs.append(jnp.moveaxis(y, 0, 1).reshape(batch, -1, width))
            measures.append(_mean(measured, cut.mask))
        if length % segment:
            carry, (y, measured) = piece(carry, _cut(token, count * segment))
            outputs.append(y)
            measures.append(measured)
        return jnp.concatenate(outputs, axis=1), carry, measures[0]

    def _by_token(self, token: SegmentTokens, start: MACState, depth, health: bool):
        """Tokens one by one, for segments that begin anywhere."""

        def one(carry: MACState, token: SegmentTokens):
            token = jax.tree.map(lambda z: z[:, None], token)
            after, y, measured = self._piece(token, carry, depth, health, whole=False)
            return after, (y[:, 0], measured)

        by_time = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), token)
        after, (y, measured) = jax.lax.scan(one, start, by_time)
        return jnp.moveaxis(y, 0, 1), after, _mean(measured, token.mask)

    def _piece(self, token: SegmentTokens, state: MACState, depth, health: bool, *, whole: bool):
        """Equations 21 to 25 on n tokens: the first of a segment (`whole`), or any single one."""
        x, ids, mask = token
        lengths = None if mask is None else jnp.sum(mask, axis=1, dtype=jnp.int32)
        reset = ids[:, 0] != state.memory.segment
        before = jax.tree.map(functools.partial(_where, reset), self._origin(), state.memory.A)
        if whole:
            start, count = before, jnp.zeros_like(state.count)
        else:
            begins = reset | (state.count == self.attention.segment)
            start = jax.tree.map(functools.partial(_where, begins), before, state.start)
            count = jnp.where(begins, 0, state.count)

        mixed, query = self.query(x, ids, lengths, state.query)
        q = self.keys.query(mixed[:, :, 0])
        h = self.recalled(flat(self.fast.recall(q, start, x)))  # (21)
        y, kept = self._attend(h, x, mask, state, count, whole)  # (22, 23)
        mixed, write = self.write(y, ids, lengths, state.write)
        own = y.reshape(*y.shape[:2], 1, self.heads, -1)
        streams = self.keys(jnp.concatenate([own, mixed], axis=2), y)
        m, memory, measured = self.fast(  # (24), and the read of (25)
            streams,
            y,
            segment_ids=ids,
            mask=mask,
            state=state.memory,
            segments_at_chunks=whole,
            at_chunk_edge=whole,
            depth=depth,
            health=health,
        )
        assert isinstance(memory, State)
        k, v, visible = kept
        count = count + (x.shape[1] if lengths is None else lengths)
        after = MACState(memory, start, k, v, visible, count, query, write)
        if lengths is not None:  # a row without tokens keeps its state
            after = jax.tree.map(functools.partial(_where, lengths > 0), after, state)
        return after, self.gating(y, flat(m)), measured

    def _origin(self) -> Weights:
        """The initial dual states of a document, leaves [1, H, ...]."""
        rule = self.fast.memory.rule
        fast, _ = split_fixed(rule, self.fast.initial_weights())
        return {name: leaf[None] for name, leaf in dual_start(rule, fast).items()}

    def _attend(self, h: Array, x: Array, mask, state: MACState, count: Array, whole: bool):
        """Causal attention of x over [p || h || x]; the outputs, and the cached keys and values."""
        segment, first = self.attention.segment, self.attention.persistent
        batch, length, _ = x.shape
        at = count[:, None] + jnp.arange(length)  # position in the segment
        base, window = self.attention.rope_base, self.attention.window
        q = rotate(self.q(x), first + segment + at, base)
        k, v = (jnp.stack(z, axis=2) for z in zip(*(self._kv(z) for z in (h, x))))
        k = jnp.stack([rotate(k[:, :, n], first + n * segment + at, base) for n in (0, 1)], axis=2)
        seen = jnp.ones((batch, length), bool) if mask is None else mask
        if mask is not None:
            k, v = where(mask, k, 0), where(mask, v, 0)
        new = k.astype(state.k.dtype), v.astype(state.v.dtype), seen
        front, scale, y = self._front(), q.shape[-1] ** -0.5, None
        if whole:
            kept = tuple(_pad(z, segment) for z in new)
            keys, values, visible = new
        else:
            put = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
            old = state.k, state.v, state.visible
            kept = keys, values, visible = tuple(
                jax.vmap(put)(z, n, count) for z, n in zip(old, new)
            )
        if whole and mask is None:
            h_then_x = [z.swapaxes(1, 2).reshape(batch, -1, *z.shape[3:]) for z in (k, v)]
            y = fused(q, h_then_x[0], h_then_x[1], front, window=window, segment=None, scale=scale)
        if y is None:
            other = jnp.arange(keys.shape[1])
            sees = (other <= at[:, :, None]) & (other > at[:, :, None] - window)
            sees = jnp.repeat(sees & visible[:, None, :], 2, axis=2)
            keys, values = (
                z.reshape(batch, -1, *z.shape[3:]).astype(x.dtype) for z in (keys, values)
            )
            if front is not None:
                keys, values, sees = in_front(keys, values, sees, *front)
            y = saved.output(attend(q, keys, values, sees, scale, as_written=False))
        return self.out(flat(y)), kept

    def _front(self) -> tuple[Array, Array] | None:
        """Persistent keys, at the first positions, and values, [K, P, D]."""
        first = self.attention.persistent
        if not first:
            return None
        k, v = (self.persistent[name][...] for name in ("k", "v"))
        at = jnp.arange(first)[None]
        return rotate(k.swapaxes(0, 1)[None], at, self.attention.rope_base)[0].swapaxes(0, 1), v

    def _kv(self, x: Array) -> tuple[Array, Array]:
        pair = self.kv(x)
        return pair[:, :, 0], pair[:, :, 1]


def _mean(measured: Any, mask: Array | None) -> Any:
    """The mean of measures [n, ...] over n pieces, weighted by tokens; the mask is [B, T]."""
    if mask is None:
        return jax.tree.map(lambda z: jnp.mean(z, axis=0), measured)
    pieces = jax.tree.leaves(measured)[0].shape[0] if jax.tree.leaves(measured) else 1
    weight = jnp.sum(mask.reshape(mask.shape[0], pieces, -1), axis=(0, 2))
    weight = weight / jnp.maximum(jnp.sum(weight), 1)
    return jax.tree.map(lambda z: jnp.tensordot(weight.astype(z.dtype), z, 1), measured)


def _where(condition: Array, new: Array, old: Array) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (old.ndim - 1)), new.astype(old.dtype), old)


def _cut(token: SegmentTokens, first: int) -> SegmentTokens:
    return jax.tree.map(lambda z: z[:, first:], token)


def _pad(x: Array, size: int) -> Array:
    return jnp.pad(x, [(0, 0), (0, size - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
