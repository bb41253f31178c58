"""LocalMemories: the memories of TNT that start anew in each shard; `tnt` has the equations."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.backends.base import Alignment
from miras.engine.layout import positions
from miras.engine.state import State
from miras.layers.config import LayerConfig, MemoryConfig
from miras.layers.fast_weights import FastWeights
from miras.layers.keys import Associations
from miras.mixers.query_projection import QueryProjection
from miras.rule.options import ScanOptions
from miras.sequence.checks import AnyState


class LocalState(NamedTuple):
    """The state of the local memories between calls.

    Attributes:
        memories: of each memory; their segment ids count shards.
        projection: P_t of each head, as the state of a matrix memory; None without it.
        position: tokens since the shard began, [B] int32, in [0, shard).
        segment: id of the document, [B] int32.
    """

    memories: tuple[AnyState, ...]
    projection: State | None
    position: Array
    segment: Array


class ShardTokens(NamedTuple):
    """Tokens of the local memories, leaves [B, T, ...]; segment ids and mask may be None."""

    streams: Associations
    x: Array
    segment_ids: Array | None
    mask: Array | None


class LocalMemories(nnx.Module):
    """sum_i W_i(P_t q_t): memories that start anew every `shard` tokens of a document.

    Args:
        memories: of each memory its rule and the options of its scan.
        shard: S, a multiple of every chunk.
        projected: whether queries are projected by P_t.
        config: of the layer around them.
        width: of the tokens.
        heads: H.
        rngs: stream `params`.
    """

    def __init__(
        self,
        memories: Sequence[MemoryConfig],
        shard: int,
        projected: bool,
        config: LayerConfig,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
    ):
        self.each = nnx.List([FastWeights(m, config, width, heads, rngs) for m in memories])
        self.shard = shard
        first = memories[0]
        options = ScanOptions(
            chunk=math.gcd(shard, 64), save_every=first.save_every, backend=first.backend
        )
        self.project = QueryProjection(heads, width // heads, options) if projected else None

    def init_state(self, batch: int, dtype=jnp.float32) -> LocalState:
        """The initial state; `dtype` is that of the tokens."""
        project = self.project
        projection = None if project is None else project.init_state(batch, dtype)
        zeros = jnp.zeros(batch, jnp.int32)
        memories = tuple(memory.init_state(batch, dtype) for memory in self.each)
        return LocalState(memories, projection, zeros, zeros)

    def __call__(
        self,
        tokens: ShardTokens,
        state: LocalState | None,
        *,
        aligned: bool,
        **call: Any,
    ) -> tuple[Array, LocalState, list[Any]]:
        """Write and read the memories.

        Args:
            tokens: of B rows.
            state: to continue from; the initial one if None.
            aligned: promise that documents begin at multiples of the shard, if `state` is None.
            **call: `depth` and `health`, see `FastWeights`.

        Returns:
            y [B, T, H, D]; the state after the last token; the measurements of each memory.
        """
        batch, length = tokens.x.shape[:2]
        start = self.init_state(batch, tokens.x.dtype) if state is None else state
        at = positions(
            tokens.segment_ids, start.position, start.segment, length, self.shard, tokens.mask
        )
        begins = at.position == 0
        if tokens.mask is not None:
            begins &= tokens.mask
        shards = start.memories[0].segment[:, None] + jnp.cumsum(begins, axis=1, dtype=jnp.int32)
        if state is None and tokens.mask is None and aligned:
            y, memories, projection, measured = self._folded(tokens, call)
            last = shards[:, -1]
            memories = tuple(memory.replace(segment=last) for memory in memories)
            projection = None if projection is None else projection.replace(segment=last)
        else:
            own = tokens._replace(segment_ids=shards)
            uncut = tokens.segment_ids is None
            y, memories, projection, measured = self._in_order(own, start, call, uncut)
        after = LocalState(memories, projection, at.end_position, at.end_segment)
        return y, after, measured

    def _folded(self, tokens: ShardTokens, call: dict[str, Any]):
        """Whole shards as rows of their own, and then the rest of the last one."""
        batch, length = tokens.x.shape[:2]
        tokens = tokens._replace(segment_ids=None)
        count = length // self.shard
        whole = count * self.shard
        parts, weights = [], []
        if count:
            rows = jax.tree.map(
                lambda z: z[:, :whole].reshape(batch * count, self.shard, *z.shape[2:]), tokens
            )
            y, memories, projection, measured = self._in_order(rows, None, call)
            last = jax.tree.map(
                lambda z: z.reshape(batch, count, *z.shape[1:])[:, -1], (memories, projection)
            )
            parts.append((y.reshape(batch, whole, *y.shape[2:]), *last, measured))
            weights.append(whole / length)
        if length % self.shard:
            rest = jax.tree.map(lambda z: z[:, whole:], tokens)
            parts.append(self._in_order(rest, None, call))
            weights.append(1 - whole / length)
        _, memories, projection, _ = parts[-1]
        y = jnp.concatenate([part[0] for part in parts], axis=1)
        mean = lambda *z: sum(w * one for w, one in zip(weights, z))  # noqa: E731
        return y, memories, projection, jax.tree.map(mean, *[part[3] for part in parts])

    def _in_order(
        self,
        tokens: ShardTokens,
        state: LocalState | None,
        call: dict[str, Any],
        uncut: bool = False,
    ):
        """Tokens whose segments are shards; `uncut`: no document begins inside one."""
        streams, x, ids, mask = tokens
        projection = None
        if self.project is not None:
            before = None if state is None else state.projection
            edges = Alignment(segments_at_edges=uncut)
            q, projection = self.project(streams, ids, mask, before, edges)
            streams = streams._replace(q=q)
        outputs, memories, measured = [], [], []
        for n, memory in enumerate(self.each):
            y, after, found = memory(
                streams,
                x,
                segment_ids=ids,
                mask=mask,
                state=None if state is None else state.memories[n],
                segments_at_chunks=False,
                segments_at_edges=uncut,
                **call,
            )
            outputs.append(y)
            memories.append(after)
            measured.append(found)
        return functools.reduce(jnp.add, outputs), tuple(memories), projection, measured
