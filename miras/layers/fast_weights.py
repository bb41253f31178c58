"""FastWeights: the memories of a layer: learned initial weights, gates and the scan.

The layer around it projects queries, keys and values, and processes the output.
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
from miras.backends.base import Alignment, ScanInputs, ScanResult
from miras.engine.averaging import by_position
from miras.engine.iterate import link
from miras.engine.layout import positions
from miras.engine.masking import where
from miras.engine.state import State, initial_state, made_by
from miras.layers.config import LayerConfig, MemoryConfig
from miras.layers.coupled_gates import AngleGates
from miras.layers.gates import GateProjections
from miras.layers.head_sizes import head_sizes
from miras.layers.keys import Associations
from miras.layers.param import param
from miras.layers.scaled_decays import ScaledDecays
from miras.rule.rule import Rule
from miras.sequence.arrays import check_float
from miras.sequence.checks import AnyState
from miras.sequence.read import answer
from miras.sequence.scan import scan_with_loss


class Health(NamedTuple):
    """Diagnostics of a layer's memory over a batch: float32 means over batch, time and heads.

    Attributes:
        inner_loss: attentional bias of each token at the snapshot of its gradient.
        memory_norm: Frobenius norm of a head's primal weights after the last token.
        update_ratio: norm of the change of the dual state in the call, relative to its norm.
        output_norm: root mean square of the layer's output.
        gates: mean of each gate in natural units, by name (lr, decay, momentum, threshold).
    """

    inner_loss: Array
    memory_norm: Array
    update_ratio: Array
    output_norm: Array
    gates: dict[str, Array]


class MemoryCall(NamedTuple):
    """Inputs and results of one call of a layer's memories, for measurements.

    Attributes:
        streams: queries, keys and values.
        gates: the learned gates, as `miras.scan` takes them.
        before: the state before the first token.
        after: the state after the last token.
        loss: inner loss of each token at the snapshot of its gradient, [B, T, H].
        mask: [B, T], False for padding; None without padding.
    """

    streams: Associations
    gates: dict[str, Array]
    before: AnyState
    after: AnyState
    loss: Array
    mask: Array | None = None


class FastWeights(nnx.Module):
    """H memories with learned initial weights and gates.

    Args:
        memory: the rule and the options of the scan.
        config: of the layer around it.
        width: of the tokens from which gates are projected.
        heads: H, each of width / heads.
        doubled: keys are [rotated, plain]; only the plain half matches a kv memory's persistent
            keys, which have no position.
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
        sizes = head_sizes(config, width, heads)
        self.head, self.value, self.doubled = sizes.key, sizes.value, doubled
        rule = memory.rule
        self.gates = GateProjections(
            rule,
            width,
            heads,
            rank=config.gate_rank,
            terms=config.rates(rule),
            rngs=rngs,
            coupled=_coupled(config, rule, heads),
            channels=(sizes.key, sizes.value),
            rate_bias=config.rate_bias,
            tanh=config.gate_activation == "tanh",
            decay_bound=config.decay_bound,
        )
        self.initial = nnx.Dict()
        if config.initial == "learned":
            raw = rule.init_raw(rngs.params(), sizes.key, sizes.value, sizes.values)
            for name, w in raw.items():
                self.initial[name] = param(w, ("heads",) + (None,) * (w.ndim - 1))
        if config.lr_by_position or rule.algorithm.averaged:
            self.lr_correction = param(jnp.zeros(memory.chunk), (None,))

    def initial_weights(self) -> Weights:
        """The learned W0, primal, leaves [H, ...]."""
        if self.config.initial == "zero":
            draw = functools.partial(
                self.memory.rule.init_raw, dk=self.head, dv=self.value, heads=self.heads
            )
            shapes = jax.eval_shape(draw, jax.random.key(0))
            return {n: jnp.zeros(leaf.shape, leaf.dtype) for n, leaf in shapes.items()}
        weights = self.memory.rule.constrain({n: leaf[...] for n, leaf in self.initial.items()})
        if self.doubled:
            plain = weights["k"]
            weights["k"] = jnp.concatenate([jnp.zeros_like(plain), plain], axis=-1)
        return weights

    def init_state(self, batch: int, dtype=jnp.float32) -> AnyState:
        """The initial state; `dtype` is that of the tokens."""
        rule, cache = self.memory.rule, self.memory.rule.memory.token_cache
        check_float("a layer's state", dtype)
        if cache is not None:
            dk = self.head * (1 + self.doubled)
            heads = self.config.kv_heads or self.heads
            return initial_kv_state(cache, batch, heads, dk, self.value, dtype)
        kept = self.memory.precision.kept(jnp.promote_types(jnp.float32, dtype))
        widths = self.head, self.value
        W0 = self.initial_weights()
        chunk = self.memory.chunk
        made = made_by(rule, chunk, self.memory.exact)
        refine = min(self.memory.refine, chunk)
        terms = self.config.terms(rule)
        return initial_state(
            rule, W0, batch, *widths, refine=refine, dtype=kept, made=made, terms=terms
        )

    def recall(self, q: Array, A: Weights, x: Array) -> Array:
        """Read memories with dual states A, leaves [B, H, ...], at q [B, T, H, D].

        The gates of the read are projected from the tokens x [B, T, width].
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
        segments_at_edges: bool = False,
        depth: Array | float = 0.0,
        health: "bool | Measure" = False,
    ) -> tuple[Array, AnyState, Any]:
        """Write and read the memories.

        Args:
            streams: queries, keys and values.
            x: tokens [B, T, width], from which gates are projected.
            segment_ids: [B, T]; see `miras.scan`.
            mask: [B, T]; see `miras.scan`.
            state: to continue from; the initial one if None.
            segments_at_chunks: see `miras.backends.base.Alignment`.
            at_chunk_edge: see `miras.backends.base.Alignment`.
            segments_at_edges: see `miras.backends.base.Alignment`.
            depth: l / (L - 1) of layer l of L, for `decay_by_depth`.
            health: whether to measure it; or a function of these memories and the call, whose
                result is returned in its place.

        Returns:
            y [B, T, H, D]; the state after the last token; the health, without the output norm, or
            None.
        """
        gates = self.gates_of(x, segment_ids=segment_ids, mask=mask, state=state, depth=depth)
        y, after, loss = self.write_and_read(
            streams,
            gates,
            segment_ids=segment_ids,
            mask=mask,
            state=state,
            alignment=Alignment(segments_at_chunks, at_chunk_edge, segments_at_edges),
        )
        if not health:
            return y, after, None
        before = self.init_state(x.shape[0]) if state is None else state
        call = MemoryCall(streams, gates, before, after, loss, mask)
        return y, after, self.measured(health, call)

    def gates_of(
        self,
        x: Array,
        *,
        segment_ids: Array | None,
        mask: Array | None,
        state: AnyState | None,
        depth: Array | float = 0.0,
    ) -> dict[str, Array]:
        """The learned gates of tokens x [B, T, width], as `miras.scan` takes them."""
        gates = self.gates(x)
        if self.config.decay_by_depth:
            gates |= self._scale_decays(gates, depth, *x.shape[:2])
        if self.config.lr_by_position:
            gates |= self._scale_rates(gates, segments_of(segment_ids, state, x), state, mask)
        return gates

    def rates_of(self, x: Array) -> Array:
        """The rate of tokens x [B, T, width], of a rule with one per head: [B, T, H]."""
        rate = self.memory.rule.rate
        assert rate is not None
        constant = jnp.asarray(rate.constant(self.heads), jnp.float32)
        rates = self.gates(x)[rate.name] if rate.learned else constant
        return jnp.broadcast_to(rates, (*x.shape[:2], self.heads))

    def write_and_read(
        self,
        streams: Associations,
        gates: dict[str, Array],
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: AnyState | None = None,
        alignment: Alignment = Alignment(),
    ) -> ScanResult:
        """`miras.scan` of the memories, with the gates that `gates_of` made."""
        inputs = ScanInputs(
            self.initial_weights(),
            streams.q,
            streams.k,
            streams.v,
            gates,
            k_write=streams.k_write,
            state=state,
            segment_ids=segment_ids,
            mask=mask,
            average=self._average(),
        )
        return scan_with_loss(self.memory.rule, inputs, self.memory.options, alignment)

    def measured(self, health: "bool | Measure", call: MemoryCall) -> Any:
        """The health of a call, or the result of the function given for it."""
        return self._health(call) if health is True else health(self, call)  # pyright: ignore

    def _average(self) -> Array | None:
        """max(0, 1 / (1 + i) + correction of position i), [C]; None unless the rule averages."""
        return self._by_position() if self.memory.rule.algorithm.averaged else None

    def _by_position(self) -> Array:
        correction = self.lr_correction[...]
        return jnp.maximum(0.0, by_position(self.memory.chunk, correction.dtype) + correction)

    def _scale_decays(
        self, gates: dict[str, Array], depth: Array | float, batch: int, length: int
    ) -> dict[str, Array]:
        """The log decays per head, times 1 - depth + 1e-5."""
        retention = self.memory.rule.retention
        (decay,) = (g for g in retention.gates() if g.role == "decay" and g.side == "head")
        constant = jnp.asarray(decay.constant(self.heads), jnp.float32)
        log_decay = gates.get(decay.name, constant) * (1 - depth + 1e-5)
        return {decay.name: jnp.broadcast_to(log_decay, (batch, length, self.heads))}

    def _scale_rates(
        self,
        gates: dict[str, Array],
        segments: Array,
        before: AnyState | None,
        mask: Array | None,
    ) -> dict[str, Array]:
        """eta_t times max(0, 1 / (1 + position in the chunk) + correction), [B, T, H]."""
        rate = self.memory.rule.rate
        assert rate is not None
        constant = jnp.asarray(rate.constant(self.heads), jnp.float32)
        start = jnp.zeros(segments.shape[0], jnp.int32), segments[:, 0]
        if isinstance(before, State):
            start = before.position, before.segment
        chunk = self.memory.chunk
        at = positions(segments, *start, segments.shape[1], chunk, mask).position
        return {rate.name: gates.get(rate.name, constant) * self._by_position()[at][..., None]}

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
        logs = {gate.name for gate in self.memory.rule.gates if gate.range == "log_unit"}
        natural = {
            name.removeprefix("log_"): jnp.exp(gate) if name in logs else gate
            for name, gate in gates.items()
        }
        return Health(
            inner_loss=masked_mean(loss, mask),
            memory_norm=jnp.mean(norm),
            update_ratio=jnp.mean(ratio),
            output_norm=jnp.zeros(()),
            gates={name: masked_mean(gate, mask) for name, gate in natural.items()},
        )


def _coupled(config: LayerConfig, rule: Rule, heads: int) -> AngleGates | ScaledDecays | None:
    """What maps projected gates to those of the rule."""
    if config.gates == "angle":
        return AngleGates(rule, heads)
    learned = config.gates == "scaled"
    if not learned and config.decay_power == 1:
        return None
    return ScaledDecays(rule, heads, power=config.decay_power, learned=learned)


Measure = Callable[[FastWeights, MemoryCall], Any]


def segments_of(segment_ids: Array | None, before: AnyState | None, x: Array) -> Array:
    """The segment ids of tokens x [B, T, ...]; by default the last one of the state, [B, T]."""
    if segment_ids is not None:
        return segment_ids.astype(jnp.int32)
    return jnp.broadcast_to(last_segment(before, x)[:, None], x.shape[:2])


def last_segment(before: AnyState | None, x: Array) -> Array:
    """The segment id of the token before tokens x [B, T, ...], [B]."""
    if before is None:
        return jnp.zeros(x.shape[0], jnp.int32)
    return before.last_id if isinstance(before, KVState) else before.segment


def with_output(health: Any, y: Array, mask: Array | None = None) -> Any:
    """Add the root mean square of a layer's output to its health; returns others unchanged."""
    if not isinstance(health, Health):
        return health
    square = masked_mean(jnp.square(y.astype(jnp.float32)), mask)
    return health._replace(output_norm=jnp.sqrt(square))


def masked_mean(x: Array, mask: Array | None) -> Array:
    """The mean of x [B, T, ...] over tokens that are not padding; 0 without tokens."""
    if mask is None:
        return jnp.mean(x)
    each = math.prod(x.shape[2:])
    return jnp.sum(where(mask, x, 0)) / (each * jnp.maximum(jnp.sum(mask), 1))


def _norm_per_head(weights: Weights) -> Array:
    """Frobenius norm over all leaves [B, H, ...], [B, H]."""
    full = [leaf.astype(jnp.float32) for leaf in weights.values()]
    squares = [jnp.sum(leaf**2, axis=tuple(range(2, leaf.ndim))) for leaf in full]
    return jnp.sqrt(sum(squares))
