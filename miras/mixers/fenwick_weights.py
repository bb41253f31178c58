"""FenwickWeights: the memories of a layer, one for each level of a Fenwick tree over the tokens.

A rule of a linear memory is affine in the values of its tokens, and its columns do not see each
other. So the levels are further columns of one memory: `miras.scan` runs it on values of 0, which
moves all levels by the rule's transition. Tokens are read before they are at a level: each has a
column of its own within a piece of C tokens, of value 1 at that token,

    [P_t, q_t W_0, ..., q_t W_{L-2}]    what the scan reads; P_t[s] is the weight of v_s
    y_t = sum_s lambda_t[level(t, s)] P_t[s] v_s + sum_j lambda_t[level(t, j)] q_t W_j

and joins the memory of its level at the end of the piece.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.backends.base import Alignment, ScanInputs
from miras.engine.layout import positions
from miras.engine.masking import where
from miras.engine.state import State, initial_state, made_by
from miras.layers.fast_weights import FastWeights
from miras.layers.keys import Associations
from miras.layers.param import LinearGeneral, param
from miras.mixers.fenwick import level_of_memory, level_of_token
from miras.sequence.scan import scan_with_loss

LONGEST = 2**31 - 1  # tokens of a document that are counted


class FenwickState(NamedTuple):
    """The state of the levels between calls.

    Attributes:
        memory: the memories of levels 1 to L - 1 as the columns of one, leaves
            [B, H, in, (L - 1) * Dv].
        count: [B] int32, tokens of the document.
    """

    memory: State
    count: Array

    @property
    def segment(self) -> Array:
        """Id of the last token's document, [B]."""
        return self.memory.segment


class Piece(NamedTuple):
    """Up to C tokens, [B, C, ...].

    Attributes:
        streams: queries, keys and values.
        gates: of the memories.
        lambdas: [B, C, H, L], the weight of each level.
        ids: ids of documents; None to continue that of the state.
        mask: False for padding; None without padding.
    """

    streams: Associations
    gates: dict[str, Array]
    lambdas: Array
    ids: Array | None
    mask: Array | None


class FenwickWeights(FastWeights):
    """`FastWeights` with a memory for each level; see `miras.mixers.log_linear`.

    Args:
        levels: L.
        others: as `FastWeights`.
    """

    def __init__(self, memory, config, width: int, heads: int, rngs, *, levels: int, **others):
        super().__init__(memory, config, width, heads, rngs, **others)
        self.levels = levels
        self.rates = LinearGeneral(
            (width, heads, levels), ("embed", "heads", None), rngs, start=0.0
        )
        # softplus(1 * log(e - 1)) = 1: initially the base rule.
        self.rate_bias = param(
            jnp.full((heads, levels), math.log(math.e - 1), jnp.float32), ("heads", None)
        )
        self.scale = param(jnp.ones((heads, levels), jnp.float32), ("heads", None))

    def init_state(self, batch: int, dtype=jnp.float32) -> FenwickState:  # pyright: ignore
        """The initial state: the learned initial memory at the last level, 0 at the others."""
        kept = self.memory.precision.kept(jnp.promote_types(jnp.float32, dtype))
        return self._state(batch, self.levels, kept)

    def _state(self, batch: int, levels: int, dtype) -> FenwickState:
        rule, W0 = self.memory.rule, self._start(0, levels)
        made = made_by(rule, self.memory.chunk, self.memory.exact)
        widths = self.head, (levels - 1) * self.head
        memory = initial_state(rule, W0, batch, *widths, dtype=dtype, made=made)
        return FenwickState(memory, jnp.zeros(batch, jnp.int32))

    def _start(self, columns: int, levels: int) -> Weights:
        """Initial weights [H, in, columns + (levels - 1) * Dv]."""
        empty = columns + (levels - 2) * self.head
        return {
            name: jnp.pad(leaf, ((0, 0), (0, 0), (empty, 0)))
            for name, leaf in self.initial_weights().items()
        }

    def __call__(  # pyright: ignore
        self,
        streams: Associations,
        x: Array,
        *,
        segment_ids: Array | None,
        mask: Array | None,
        state: FenwickState | None,
        segments_at_chunks: bool,
        depth: Array | float = 0.0,
        health: Any = False,
    ) -> tuple[Array, FenwickState, Any]:
        """As `FastWeights.__call__`; health is that of the sum of all levels, the base rule."""
        start = self.init_state(x.shape[0], x.dtype) if state is None else state
        gates = self.gates_of(x, segment_ids=segment_ids, mask=mask, state=None, depth=depth)
        ids = None if segment_ids is None else segment_ids.astype(jnp.int32)
        piece = Piece(streams, gates, self._lambdas(x), ids, mask)
        known = state is None and segments_at_chunks and mask is None
        if state is None:
            y, after = self._from_the_start(piece, known)
        else:
            y, after = self._run(piece, start, known)
        measured = None
        if health:
            measured = self._health_of_sum(streams, x, segment_ids, mask, start, depth, health)
        return y, after, measured

    def _lambdas(self, x: Array) -> Array:
        """softplus(L_l dl_t), [B, T, H, L], float32."""
        x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        return jax.nn.softplus(self.scale[...] * (self.rates(x) + self.rate_bias[...]))

    def _from_the_start(self, whole: Piece, segments_at_chunks: bool):
        """With the levels that the call's tokens can reach, and the last."""
        batch, length = whole.lambdas.shape[:2]
        few = min(self.levels, length.bit_length() + 2)
        lambdas = jnp.concatenate([whole.lambdas[..., : few - 1], whole.lambdas[..., -1:]], axis=-1)
        kept = self.memory.precision.kept(lambdas.dtype)
        state = self._state(batch, few, kept)
        y, after = self._run(whole._replace(lambdas=lambdas), state, segments_at_chunks)

        def with_empty_levels(leaf: Array) -> Array:
            first, last = leaf[..., : -self.head], leaf[..., -self.head :]
            empty = [(0, 0)] * (leaf.ndim - 1) + [(0, (self.levels - few) * self.head)]
            return jnp.concatenate([jnp.pad(first, empty), last], axis=-1)

        return y, after._replace(memory=_map_weights(with_empty_levels, after.memory))

    def _run(self, whole: Piece, start: FenwickState, segments_at_chunks: bool):
        """Piece by piece; the last one is shorter."""
        length, size = whole.lambdas.shape[1], self.memory.chunk
        count = length // size

        def step(state: FenwickState, piece: Piece):
            y, state = self._piece(piece, state, segments_at_chunks)
            return state, y

        def pieces(x: Array) -> Array:
            x = x[:, : count * size].reshape(x.shape[0], count, size, *x.shape[2:])
            return jnp.moveaxis(x, 1, 0)

        outputs, state = [], start
        if count:
            state, y = jax.lax.scan(step, state, jax.tree.map(pieces, whole))
            outputs.append(jnp.moveaxis(y, 0, 1).reshape(y.shape[1], count * size, *y.shape[3:]))
        if length % size:
            state, y = step(state, jax.tree.map(lambda x: x[:, count * size :], whole))
            outputs.append(y)
        return jnp.concatenate(outputs, axis=1), state

    def _piece(self, piece: Piece, start: FenwickState, segments_at_chunks: bool):
        """Read and write one piece."""
        streams, levels = piece.streams, piece.lambdas.shape[-1]
        batch, length, heads = streams.q.shape[:3]
        dtype = jnp.promote_types(jnp.float32, streams.q.dtype)
        terms = 1 if streams.v.ndim == 4 else streams.v.shape[3]
        own = length * terms  # columns of the piece's own values
        at = positions(piece.ids, start.count, start.segment, length, LONGEST, piece.mask)
        reads, end = self._scan(piece, start.memory, own, segments_at_chunks)

        v = streams.v.reshape(batch, length, heads, terms, -1).astype(dtype)
        j = jnp.arange(levels - 1, dtype=jnp.int32)
        t = at.position[:, :, None]
        of_token = level_of_token(t, at.position[:, None, :], levels)  # [B, t, s]
        of_memory = level_of_memory(t, j, start.count[:, None, None], levels)
        weight = _pick(piece.lambdas, of_token)[..., None]  # [B, t, H, s, 1]
        P = reads[..., :own].reshape(batch, length, heads, length, terms)
        y = jnp.einsum("bthsr,bshrv->bthv", weight * P, v)
        held = reads[..., own:].reshape(batch, length, heads, levels - 1, -1)
        y = y + jnp.einsum("bthj,bthjv->bthv", _pick(piece.lambdas, of_memory), held)
        y = y.astype(streams.q.dtype)

        count = at.end_position[:, None]
        into = level_of_token(count, at.position, levels) - 1  # of each token, [B, s]
        moved = level_of_memory(count, j, start.count[:, None], levels) - 1  # of each memory
        into, moved = (jax.nn.one_hot(n, levels - 1, dtype=dtype) for n in (into, moved))

        def merged(leaf: Array) -> Array:
            shape = leaf.shape[:3]
            columns = leaf.astype(dtype)
            new = columns[..., :own].reshape(*shape, length, terms)
            new = jnp.einsum("bhisr,bsj,bshrv->bhijv", new, into, v)
            old = columns[..., own:].reshape(*shape, levels - 1, -1)
            old = jnp.einsum("bhikv,bkj->bhijv", old, moved)
            return (new + old).reshape(*shape, -1).astype(leaf.dtype)

        after = FenwickState(_map_weights(merged, end), at.end_position)
        return y if piece.mask is None else where(piece.mask, y, 0), after

    def _scan(self, piece: Piece, memory: State, own: int, segments_at_chunks: bool):
        """`miras.scan` with a column for each of the piece's values, before those of the levels."""
        q, v = piece.streams.q, piece.streams.v
        unit = jnp.eye(own, dtype=q.dtype).reshape(v.shape[1], *v.shape[3:-1], own)
        unit = jnp.broadcast_to(jnp.expand_dims(unit, 1), (*v.shape[:-1], own))
        levels = piece.lambdas.shape[-1]
        wide = (levels - 1) * self.head
        values = jnp.pad(unit, [(0, 0)] * (v.ndim - 1) + [(0, wide)])

        def with_columns(leaf: Array) -> Array:
            return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(own, 0)])

        inputs = ScanInputs(
            self._start(own, levels),
            q,
            piece.streams.k,
            values,
            piece.gates,
            k_write=piece.streams.k_write,
            state=_map_weights(with_columns, memory),
            segment_ids=piece.ids,
            mask=piece.mask,
        )
        edge = Alignment(segments_at_chunks, at_chunk_edge=True)
        y, end, _ = scan_with_loss(self.memory.rule, inputs, self.memory.options, edge)
        return y.astype(piece.lambdas.dtype), end.replace(position=jnp.zeros_like(end.position))

    def _health_of_sum(self, streams, x, segment_ids, mask, start: FenwickState, depth, health):
        """The health of the base rule, whose memory is the sum of all levels."""

        def summed(leaf: Array) -> Array:
            return leaf.reshape(*leaf.shape[:3], self.levels - 1, -1).sum(axis=3)

        _, _, measured = super().__call__(
            streams,
            x,
            segment_ids=segment_ids,
            mask=mask,
            state=_map_weights(summed, start.memory),
            segments_at_chunks=False,
            depth=depth,
            health=health,
        )
        return measured


def _map_weights(change, memory: State) -> State:
    """The state with its weights and buffers, [B, H, in, out], changed."""
    names = ("A", "S", "V", "R")
    return memory.replace(**{n: jax.tree.map(change, getattr(memory, n)) for n in names})


def _pick(lambdas: Array, level: Array) -> Array:
    """lambda_t of each level: [B, T, H, L] at [B, T, n], to [B, T, H, n]."""
    index = jnp.broadcast_to(level[:, :, None], (*lambdas.shape[:3], level.shape[-1]))
    return jnp.take_along_axis(lambdas, index, axis=3)
