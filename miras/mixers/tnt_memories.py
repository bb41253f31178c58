"""TNTMemories: a global memory and local ones; `tnt` has their equations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.engine.state import State
from miras.layers.config import LayerConfig, MemoryConfig
from miras.layers.fast_weights import FastWeights
from miras.layers.keys import Associations
from miras.mixers.local_memories import LocalMemories, LocalState, ShardTokens


class TNTState(NamedTuple):
    """The states of the global memory and of the local ones; None without local ones."""

    document: State
    shard: LocalState | None

    @property
    def segment(self) -> Array:
        """Id of the document, [B]."""
        return self.document.segment


class TNTMemories(nnx.Module):
    """V(q_t) + sum_i W_i(P_t q_t), in the place of `FastWeights` in a `MemoryLayer`.

    Args:
        memory: of the global memory, the rule and the options of its scan.
        config: of the layer around them.
        width: of the tokens.
        heads: H.
        rngs: stream `params`.
        local: of each local memory, as `memory`.
        shard: S.
        projected: whether the queries of local memories are projected by P_t.
        doubled: see `FastWeights`; False.
    """

    def __init__(
        self,
        memory: MemoryConfig,
        config: LayerConfig,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
        *,
        local: tuple[MemoryConfig, ...],
        shard: int,
        projected: bool,
        doubled: bool = False,
    ):
        assert not doubled
        self.document = FastWeights(memory, config, width, heads, rngs)
        own = shard, projected, config, width, heads, rngs
        self.shard = LocalMemories(local, *own) if local else None

    def init_state(self, batch: int, dtype=jnp.float32) -> TNTState:
        """The initial state; `dtype` is that of the tokens."""
        document = self.document.init_state(batch, dtype)
        assert isinstance(document, State)
        shard = None if self.shard is None else self.shard.init_state(batch, dtype)
        return TNTState(document, shard)

    def rates_of(self, x: Array) -> Array:
        """The rate of the global memory; see `FastWeights.rates_of`."""
        return self.document.rates_of(x)

    def __call__(
        self,
        streams: Associations,
        x: Array,
        *,
        segment_ids: Array | None,
        mask: Array | None,
        state: TNTState | None,
        segments_at_chunks: bool,
        depth: Array | float = 0.0,
        health: Any = False,
    ) -> tuple[Array, TNTState, Any]:
        """As `FastWeights.__call__`; `segments_at_chunks` promises documents at shard starts.

        The measurements are means over the memories, or those of the global one where the local
        rules measure something else.
        """
        document, shard = (None, None) if state is None else state
        call = {"depth": depth, "health": health}
        y, document, measured = self.document(
            streams,
            x,
            segment_ids=segment_ids,
            mask=mask,
            state=document,
            segments_at_chunks=segments_at_chunks,
            **call,
        )
        assert isinstance(document, State)
        if self.shard is not None:
            tokens = ShardTokens(streams, x, segment_ids, mask)
            aligned = segment_ids is None or segments_at_chunks
            local, shard, found = self.shard(tokens, shard, aligned=aligned, **call)
            y, measured = y + local, _mean([measured, *found])
        return y, TNTState(document, shard), measured


def _mean(measured: list[Any]) -> Any:
    if len({jax.tree.structure(one) for one in measured}) > 1:
        return measured[0]
    return jax.tree.map(lambda *x: sum(x) / len(x), *measured)
