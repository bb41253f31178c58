"""FastWeights: a rule's memories inside a layer: their learned start, their gates, the scan.

How queries, keys and values are made, and what becomes of what is read, is the layer's business.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array, Weights
from miras.attention.cache import KVState, initial_kv_state
from miras.backends.base import Alignment, ScanInputs
from miras.engine.averaging import by_position
from miras.engine.iterate import link
from miras.engine.layout import positions
from miras.engine.masking import where
from miras.engine.state import State, initial_state, made_by
from miras.layers.config import LayerConfig, MemoryConfig
from miras.layers.gates import GateProjections
from miras.layers.keys import Associations
from miras.layers.param import param
from miras.sequence.arrays import check_float
from miras.sequence.checks import AnyState
from miras.sequence.read import answer
from miras.sequence.scan import scan_with_loss


class Health(NamedTuple):
    """How a layer's memory fares over a batch: float32 means over batch, time and heads.

    Attributes:
        inner_loss: attentional bias of each token at its snapshot.
        memory_norm: Frobenius norm of a head's primal weights after the last token.
        update_ratio: norm of what the call changed in the dual state, over the norm of the state.
        output_norm: root mean square of the layer's output.
        gates: mean of each gate in natural units, by name (lr, decay, momentum, threshold).
    """

    inner_loss: Array
    memory_norm: Array
    update_ratio: Array
    output_norm: Array
    gates: dict[str, Array]


class MemoryCall(NamedTuple):
    """One call of a layer's memories, for what measures it.

    Attributes:
        streams: what was written and asked.
        gates: those that the layer made, as `miras.scan` takes them.
        before: the state before the first token.
        after: the state after the last.
        loss: inner loss of each token where its gradient was taken, [B, T, H].
        mask: which tokens are there, [B, T]; None for all.
    """

    streams: Associations
    gates: dict[str, Array]
    before: AnyState
    after: AnyState
    loss: Array
    mask: Array | None = None


class FastWeights(nnx.Module):
    """H memories, whose initial weights and gates are learned.

    Args:
        memory: the rule and how it is run.
        config: of the layer around it.
        width: of the tokens that gates are made from.
        heads: H, of width / heads.
        doubled: keys come as [rotated, plain], and a kv memory's persistent keys, which have no
            position, are met by the plain half alone.
        rngs: stream `params`.
    """

    def __init__(
        self,
        memory: MemoryConfig,
        config: LayerConfig,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
        *,
        doubled: bool = False,
    ):
        config.check_rule(memory.rule)
        self.memory, self.config, self.heads = memory, config, heads
        self.head, self.doubled = width // heads, doubled
        rule = memory.rule
        terms = config.terms(rule)
        self.gates = GateProjections(
            rule, width, heads, rank=config.gate_rank, terms=terms, rngs=rngs
        )
        raw = rule.init_raw(rngs.params(), self.head, self.head, heads)
        self.initial = nnx.Dict(
            {n: param(w, ("heads",) + (None,) * (w.ndim - 1)) for n, w in raw.items()}
        )
        if config.lr_by_position or rule.algorithm.averaged:
            self.lr_correction = param(jnp.zeros(memory.chunk), (None,))

    def initial_weights(self) -> Weights:
        """The learned W0, primal, leaves [H, ...]."""
        weights = self.memory.rule.constrain({n: leaf[...] for n, leaf in self.initial.items()})
        if self.doubled:
            behind = weights["k"]
            weights["k"] = jnp.concatenate([jnp.zeros_like(behind), behind], axis=-1)
        return weights

    def init_state(self, batch: int, dtype=jnp.float32) -> AnyState:
        """The state before the first token; `dtype` is that of the tokens."""
        rule, cache = self.memory.rule, self.memory.rule.memory.token_cache
        check_float("a layer's state", dtype)
        if cache is not None:
            dk = self.head * (1 + self.doubled)
            return initial_kv_state(cache, batch, self.heads, dk, self.head, dtype)
        kept = self.memory.precision.kept(jnp.promote_types(jnp.float32, dtype))
        widths = self.head, self.head
        W0 = self.initial_weights()
        chunk = self.memory.chunk
        made = made_by(rule, chunk, self.memory.exact)
        refine = min(self.memory.refine, chunk)
        return initial_state(rule, W0, batch, *widths, refine=refine, dtype=kept, made=made)

    def recall(self, q: Array, A: Weights, x: Array) -> Array:
        """What memories in dual states A, leaves [B, H, ...], answer to q [B, T, H, D].

        The gates that a memory reads with are made of the tokens x [B, T, width].
        """
        rule = self.memory.rule
        gates = self.gates(x) if rule.memory.gates() else {}
        return answer(rule, self.initial_weights(), q, A, gates)

    def __call__(
        self,
        streams: Associations,
        x: Array,
        *,
        segment_ids: Array | None,
        mask: Array | None,
        state: AnyState | None,
        segments_at_chunks: bool,
        at_chunk_edge: bool = False,
        depth: Array | float = 0.0,
        health: "bool | Measure" = False,
    ) -> tuple[Array, AnyState, Any]:
        """Write and read: y [B, T, H, D], the state after it, and health, but for the output's.

        Args:
            streams: queries, keys and values.
            x: tokens [B, T, width] that the gates are made from.
            segment_ids: [B, T]; see `miras.scan`.
            mask: [B, T]; see `miras.scan`.
            state: where to go on from.
            segments_at_chunks: see `miras.backends.base.Alignment`.
            at_chunk_edge: see `miras.backends.base.Alignment`.
            depth: l / (L - 1) of layer l of L, for `decay_by_depth`.
            health: measure it; None is returned otherwise. A function takes its place, so that
                whatever a call holds can be seen: of these memories and the call, to any pytree.
        """
        batch, length = x.shape[:2]
        gates = self.gates(x)
        if self.config.decay_by_depth:
            gates |= self._slower(gates, depth, batch, length)
        if self.config.lr_by_position:
            gates |= self._rate(gates, segments_of(segment_ids, state, x), state, mask)
        W0, memory = self.initial_weights(), self.memory
        y, after, loss = scan_with_loss(
            memory.rule,
            ScanInputs(
                W0,
                streams.q,
                streams.k,
                streams.v,
                gates,
                k_write=streams.k_write,
                state=state,
                segment_ids=segment_ids,
                mask=mask,
                average=self._average(),
            ),
            memory.options,
            Alignment(segments_at_chunks, at_chunk_edge),
        )
        if not health:
            return y, after, None
        before = self.init_state(batch) if state is None else state
        measure = FastWeights._health if health is True else health
        return y, after, measure(self, MemoryCall(streams, gates, before, after, loss, mask))

    def _average(self) -> Array | None:
        """max(0, 1 / (1 + i) + correction of position i), [C], where the rule averages."""
        return self._by_position() if self.memory.rule.algorithm.averaged else None

    def _by_position(self) -> Array:
        correction = self.lr_correction[...]
        return jnp.maximum(0.0, by_position(self.memory.chunk, correction.dtype) + correction)

    def _slower(
        self, gates: dict[str, Array], depth: Array | float, batch: int, length: int
    ) -> dict[str, Array]:
        """The log decays per head, times 1 - depth + 1e-5."""
        retention = self.memory.rule.retention
        (decay,) = (g for g in retention.gates() if g.role == "decay" and g.side == "head")
        held = jnp.asarray(decay.constant(self.heads), jnp.float32)
        log_decay = gates.get(decay.name, held) * (1 - depth + 1e-5)
        return {decay.name: jnp.broadcast_to(log_decay, (batch, length, self.heads))}

    def _rate(
        self,
        gates: dict[str, Array],
        segments: Array,
        before: AnyState | None,
        mask: Array | None,
    ) -> dict[str, Array]:
        """eta_t times max(0, 1 / (1 + position in the chunk) + correction), [B, T, H]."""
        rate = self.memory.rule.rate
        assert rate is not None
        held = jnp.asarray(rate.constant(self.heads), jnp.float32)
        start = jnp.zeros(segments.shape[0], jnp.int32), segments[:, 0]
        if isinstance(before, State):
            start = before.position, before.segment
        chunk = self.memory.chunk
        at = positions(segments, *start, segments.shape[1], chunk, mask).position
        return {rate.name: gates.get(rate.name, held) * self._by_position()[at][..., None]}

    def _health(self, call: MemoryCall) -> Health:
        _, gates, before, after, loss, mask = call
        norm = ratio = jnp.zeros(())
        if isinstance(after, State):
            assert isinstance(before, State)
            of_head = functools.partial(link, self.memory.rule)
            primal = jax.vmap(jax.vmap(of_head))(after.A)
            change = _norm_per_head(jax.tree.map(jnp.subtract, after.A, before.A))
            norm = _norm_per_head(primal)
            ratio = change / jnp.maximum(_norm_per_head(after.A), 1e-12)
        natural = {name.removeprefix("log_"): _natural(name, gate) for name, gate in gates.items()}
        return Health(
            inner_loss=mean_of_own(loss, mask),
            memory_norm=jnp.mean(norm),
            update_ratio=jnp.mean(ratio),
            output_norm=jnp.zeros(()),
            gates={name: mean_of_own(gate, mask) for name, gate in natural.items()},
        )


Measure = Callable[[FastWeights, MemoryCall], Any]


def segments_of(segment_ids: Array | None, before: AnyState | None, x: Array) -> Array:
    """The ids of tokens x [B, T, ...], or the last one going on, [B, T]."""
    if segment_ids is not None:
        return segment_ids.astype(jnp.int32)
    return jnp.broadcast_to(last_segment(before, x)[:, None], x.shape[:2])


def last_segment(before: AnyState | None, x: Array) -> Array:
    """The id of the token before tokens x [B, T, ...], [B]."""
    if before is None:
        return jnp.zeros(x.shape[0], jnp.int32)
    return before.last_id if isinstance(before, KVState) else before.segment


def with_output(health: Any, y: Array, mask: Array | None = None) -> Any:
    """The health with the root mean square of a layer's output; other measures as they are."""
    if not isinstance(health, Health):
        return health
    square = mean_of_own(jnp.square(y.astype(jnp.float32)), mask)
    return health._replace(output_norm=jnp.sqrt(square))


def mean_of_own(x: Array, mask: Array | None) -> Array:
    """The mean of x [B, T, ...] over the tokens that are there; 0 where none is."""
    if mask is None:
        return jnp.mean(x)
    each = math.prod(x.shape[2:])
    return jnp.sum(where(mask, x, 0)) / (each * jnp.maximum(jnp.sum(mask), 1))


def _natural(name: str, gate: Array) -> Array:
    return jnp.exp(gate) if name.startswith("log_") else gate


def _norm_per_head(weights: Weights) -> Array:
    """Frobenius norm over all leaves [B, H, ...], [B, H]."""
    full = [leaf.astype(jnp.float32) for leaf in weights.values()]
    squares = [jnp.sum(leaf**2, axis=tuple(range(2, leaf.ndim))) for leaf in full]
    return jnp.sqrt(sum(squares))
