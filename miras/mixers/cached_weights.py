"""CachedWeights: the memories of a layer, and a cache of them at the ends of segments."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.layout import positions, tiles_needed
from miras.engine.masking import where
from miras.engine.state import State
from miras.layers.fast_weights import FastWeights, MemoryCall
from miras.layers.keys import Associations
from miras.layers.param import LinearGeneral
from miras.mixers import cache, cached_reads
from miras.mixers.cache import CacheState
from miras.mixers.cached_reads import Shares
from miras.mixers.caching import Caching
from miras.mixers.segment_writes import (
    Begin,
    SegmentTiles,
    Written,
    at_tile,
    choose,
    write_apart,
    write_in_order,
)
from miras.mixers.segments import Segments, lay_out, numbers, tiles_at_most


class MemoryInputs(NamedTuple):
    """The inputs of the memories by token, [B, T, ...]; padding is at the end of a row.

    Attributes:
        streams: queries, keys and values.
        gates: of the memories.
        u: x W_u, [B, T, H, Dk]; None where reads are not weighted.
        ids: ids of documents, or None.
        mask: False for padding, or None.
    """

    streams: Associations
    gates: dict[str, Array]
    u: Array | None
    ids: Array | None
    mask: Array | None


class CachedWeights(FastWeights):
    """`FastWeights` that also reads earlier memories; see `miras.mixers.memory_caching`.

    Args:
        caching: segments, and how reads are combined.
        others: as `FastWeights`.
    """

    def __init__(self, memory, config, width: int, heads: int, rngs, *, caching: Caching, **others):
        super().__init__(memory, config, width, heads, rngs, **others)
        self.caching = caching
        if caching.combine != "residual":
            axes = ("embed", "heads", None)
            self.query = LinearGeneral((width, heads, width // heads), axes, rngs)

    def init_state(self, batch: int, dtype=jnp.float32) -> CacheState:  # pyright: ignore
        """The initial state: an empty cache."""
        memory, slots = self._origin(batch, dtype), self.caching.max_segments
        binary = self.caching.segmentation == "binary"
        kept = jnp.promote_types(jnp.float32, dtype)
        of_keys = (self.heads, self.head)
        return CacheState(
            memory=memory,
            cached=jax.tree.map(lambda x: jnp.repeat(x[:, None], slots, axis=1), memory.A),
            ends=jnp.zeros((batch, slots), jnp.int32),
            keys=jnp.zeros((batch, cache.LEVELS if binary else slots, *of_keys), kept),
            key_sum=jnp.zeros((batch, *of_keys), kept),
            position=jnp.zeros(batch, jnp.int32),
            count=jnp.zeros(batch, jnp.int32),
        )

    def _origin(self, batch: int, dtype) -> State:
        memory = super().init_state(batch, dtype)
        assert isinstance(memory, State)
        return memory

    def __call__(  # pyright: ignore
        self,
        streams: Associations,
        x: Array,
        *,
        segment_ids: Array | None,
        mask: Array | None,
        state: CacheState | None,
        segments_at_chunks: bool,
        depth: Array | float = 0.0,
        health: Any = False,
    ) -> tuple[Array, CacheState, Any]:
        """As `FastWeights.__call__`.

        `segments_at_chunks` promises documents at multiples of the segment. The mask is False for
        padding at the end of a row.
        """
        start = self.init_state(x.shape[0], x.dtype) if state is None else state
        gates = self.gates_of(
            x, segment_ids=segment_ids, mask=mask, state=start.memory, depth=depth
        )
        u = None if self.caching.combine == "residual" else self.query(x)
        ids = None if segment_ids is None else segment_ids.astype(jnp.int32)
        tokens = MemoryInputs(streams, gates, u, ids, mask)
        y, after, loss = self._run(tokens, start, state is None, segments_at_chunks)
        if not health:
            return y, after, None
        call = MemoryCall(streams, gates, start.memory, after.memory, loss, mask)
        return y, after, self.measured(health, call)

    def _run(self, tokens: MemoryInputs, start: CacheState, new: bool, segments_at_chunks: bool):
        """In tiles of a segment where they hold the call, else token by token."""
        ids, mask = tokens.ids, tokens.mask
        length, segment = tokens.streams.q.shape[1], self.caching.segment
        if length > 1 and self._averages:
            return self._by_token(tokens, start)
        sliced = new and (ids is None or (segments_at_chunks and mask is None))
        count = tiles_at_most(length, segment, continued=not new)
        in_tiles = functools.partial(self._in_tiles, tokens, count=count, new=new, sliced=sliced)
        if sliced or ids is None or length == 1:
            return in_tiles(start)
        at = positions(ids, start.position, start.segment, length, segment, mask)
        fits = jnp.max(tiles_needed(at)) <= count
        return jax.lax.cond(fits, in_tiles, functools.partial(self._by_token, tokens), start)

    @property
    def _averages(self) -> bool:
        """Whether parameters are averaged; with a linear memory the weighted sum is the same."""
        return self.caching.combine == "soup" and not self.memory.rule.memory.is_linear

    def _by_token(self, tokens: MemoryInputs, start: CacheState):
        def one(state: CacheState, token: MemoryInputs):
            token = jax.tree.map(lambda z: z[:, None], token)
            y, state, loss = self._in_tiles(token, state, count=1, new=False, sliced=False)
            return state, (y[:, 0], loss[:, 0])

        by_time = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), tokens)
        after, found = jax.lax.scan(one, start, by_time)
        y, loss = (jnp.moveaxis(z, 0, 1) for z in found)
        return y, after, loss

    def _in_tiles(
        self, tokens: MemoryInputs, start: CacheState, *, count: int, new: bool, sliced: bool
    ):
        """Write each tile, read the memories that its tokens see, and move the cache on."""
        segmentation, slots, segment = (
            self.caching.segmentation,
            self.caching.max_segments,
            self.caching.segment,
        )
        length = tokens.streams.q.shape[1]
        at = positions(tokens.ids, start.position, start.segment, length, segment, tokens.mask)
        segments = lay_out(at, tokens.mask, segment, count, sliced=sliced)
        place = numbers(segments, start.count)
        written, after = self._write(tokens, segments, start, new, sliced)

        running = self._running_sums(tokens, segments, start)
        sums = cache.block_sums(
            segmentation, segment, segments, place, running[:, :, -1], start.keys
        )
        means = sums.blocks / sums.tokens[..., None, None].astype(sums.blocks.dtype)
        memories = written.ends
        if not new:
            old = cache.means_of_slots(segmentation, segment, start.ends, start.keys)
            means = jnp.concatenate([old, means], axis=1)
            memories = jax.tree.map(_beside, start.cached, memories)
        visible = cache.visible_to_tiles(
            segmentation, slots, segments, place, None if new else start.ends
        )
        visible = jnp.take_along_axis(visible, segments.tile[..., None], axis=1)
        own_mean = segments.tokens(running) / (segments.position + 1)[..., None, None]
        shares = self._shares(tokens, means, own_mean, visible)
        y = self._read(tokens, segments, written, memories, shares)
        held, ends = cache.held_after(segmentation, slots, segments, place, start.ends)
        cached = jax.tree.map(
            lambda old, new: _take(_beside(old, new), held), start.cached, written.ends
        )
        keys = sums.levels
        if keys is None:
            keys = _take(_beside(start.keys, sums.blocks), held)
        done = at_tile(segments.complete, segments.last)
        total = at_tile(running[:, :, -1], segments.last)
        total = choose(done, jnp.zeros_like(total), total)
        counted = at_tile(place.before, segments.last) + done
        moved = CacheState(
            memory=after,
            cached=cached,
            ends=ends,
            keys=keys,
            key_sum=choose(segments.read, total, start.key_sum),
            position=segments.end_position,
            count=choose(segments.read, counted, start.count),
        )
        return y, moved, segments.tokens(written.loss)

    def _write(
        self, tokens: MemoryInputs, segments: Segments, start: CacheState, new: bool, sliced: bool
    ) -> tuple[Written, State]:
        """Write the tiles; the result, and the memory with which the next call goes on."""
        laid_out = jax.tree.map(segments.tiles, (tokens.streams, tokens.gates))
        tiles = SegmentTiles(laid_out[0], laid_out[1], segments.present)
        origin = self._origin(segments.last.shape[0], tokens.streams.q.dtype)
        state = choose(segments.resets[:, 0], origin, start.memory)
        begin = Begin(origin, state, new, sliced)
        if self.caching.start == "chained":
            written = write_in_order(self, tiles, segments, begin)
            after = written.last
        else:
            written = write_apart(self, tiles, segments, begin)
            after = choose(at_tile(segments.complete, segments.last), origin, written.last)
        after = choose(segments.read, after, start.memory)
        return written, after.replace(segment=segments.end_segment)

    def _running_sums(self, tokens: MemoryInputs, segments: Segments, start: CacheState) -> Array:
        """Sums of the segment's keys up to each token, [B, N, width, H, Dk]."""
        k = tokens.streams.k
        k = (k if k.ndim == 4 else jnp.mean(k, axis=3)).astype(start.key_sum.dtype)
        k = segments.tiles(k if tokens.mask is None else where(tokens.mask, k, 0))
        new = segments.resets[:, 0]
        before = choose(new, jnp.zeros_like(start.key_sum), start.key_sum)
        return jnp.cumsum(k.at[:, 0, 0].add(before), axis=2)

    def _shares(
        self, tokens: MemoryInputs, means: Array, own_mean: Array, visible: Array
    ) -> Shares:
        """The weights of the memories; `visible` is [B, T, E]."""
        caching = self.caching
        if tokens.u is None:
            return cached_reads.equal(visible, self.heads, means.dtype)
        u = tokens.u.astype(means.dtype)
        own = jnp.sum(u * own_mean, axis=-1)
        cached = jnp.einsum("bthd,behd->bthe", u, means)
        seen = jnp.broadcast_to(visible[:, :, None], cached.shape)
        if caching.combine == "sparse":
            return cached_reads.sparse(own, cached, seen, caching.top_k, caching.softmax_over)
        return cached_reads.softmax(own, cached, seen)

    def _read(
        self,
        tokens: MemoryInputs,
        segments: Segments,
        written: Written,
        memories: Weights,
        shares: Shares,
    ) -> Array:
        """The reads of the memories, combined, [B, T, H, Dv]."""
        given = self.memory.rule, self.initial_weights(), tokens.streams.q, tokens.gates
        if self._averages:
            y = cached_reads.soup(*given, written.last, memories, shares)
        else:
            own = segments.tokens(written.y)
            y = cached_reads.weighted_reads(*given, own, memories, shares)
        return y if tokens.mask is None else where(tokens.mask, y, 0)


def _beside(a: Array, b: Array) -> Array:
    return jnp.concatenate([a, b.astype(a.dtype)], axis=1)


def _take(x: Array, index: Array) -> Array:
    """Leaves [B, E, ...] at [B, M]."""
    return jax.vmap(lambda row, at: row[at])(x, index)
