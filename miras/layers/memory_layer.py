"""MemoryLayer: a rule as a sequence layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.config import require
from miras.engine import KVState, State, initial_kv_state, initial_state, scan_with_loss
from miras.engine.checks import AnyState
from miras.engine.layout import positions
from miras.engine.walk import SaveEvery
from miras.layers.config import LayerConfig
from miras.layers.conv import CausalConv, ConvState
from miras.layers.gates import GateProjections
from miras.layers.keys import Keys
from miras.layers.norm import RMSNorm
from miras.layers.param import Linear, param
from miras.layers.rope import rotate
from miras.memory import KV
from miras.precision import FULL, Precision
from miras.rule import Rule
from miras.typing import Array, Weights


class LayerState(NamedTuple):
    """What the layer carries between calls.

    Attributes:
        memory: the memories, or the tokens that a kv memory keeps.
        conv: the convolution's tail; None without one.
        position: tokens read so far, [B]; None without position embeddings.
    """

    memory: AnyState
    conv: ConvState | None
    position: Array | None


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


class MemoryLayer(nnx.Module):
    """Projections, convolution, keys, gates, memory, output norm, output gate, projection.

    MIRAS (2504.13173), section 5.3 and figure 2. The gates are those that the rule's parts declare
    as learned; the initial memory is learned. With a kv memory it is multi-head attention.

    Args:
        rule: the memory's four parts.
        width: of the tokens; must be a multiple of heads.
        heads: H memories of width / heads.
        config: how inputs are made from tokens.
        chunk: C of the rule.
        refine: see `miras.scan`.
        exact: see `miras.scan`.
        save_every: see `miras.scan`.
        precision: see `miras.Precision`.
        rngs: stream `params`.
    """

    def __init__(
        self,
        rule: Rule,
        width: int,
        heads: int,
        *,
        config: LayerConfig | None = None,
        chunk: int,
        refine: int = 0,
        exact: bool = False,
        save_every: SaveEvery = None,
        precision: Precision = FULL,
        rngs: nnx.Rngs,
    ):
        require(width % heads == 0, f"width={width} must be a multiple of heads={heads}.")
        config = config or LayerConfig()
        config.check_rule(rule)
        self.rule, self.width, self.heads, self.config = rule, width, heads, config
        self.chunk, self.refine, self.exact = chunk, refine, exact
        self.save_every: SaveEvery = save_every
        self.precision = precision
        head = width // heads
        axes = (None, "heads", None)
        self.keys = Keys(config, rule, width, heads, rngs)
        streams = self.keys.streams
        self.qkv = Linear((width, streams, heads, head), ("embed", *axes), rngs)
        conv = config.conv
        self.conv = CausalConv((streams, heads, head), axes, conv, rngs) if conv else None
        terms = config.terms(rule)
        self.gates = GateProjections(
            rule, width, heads, rank=config.gate_rank, terms=terms, rngs=rngs
        )
        raw = rule.init_raw(rngs.params(), head, head, heads)
        self.memory = nnx.Dict(
            {n: param(w, ("heads",) + (None,) * (w.ndim - 1)) for n, w in raw.items()}
        )
        if config.lr_by_position:
            self.lr_correction = param(jnp.zeros(chunk), (None,))
        # The eps bounds the gain on reads near 0, as of a query that matches no key yet: with 1e-6
        # they alone make the outer gradient of a matrix memory eight times larger.
        norm, gate = config.output_norm, config.output_gate
        self.norm = RMSNorm((heads, head), ("heads", None), eps=1e-3) if norm else None
        self.gate = Linear((width, width), ("embed", "heads"), rngs) if gate else None
        self.out = Linear((width, width), ("heads", "embed"), rngs)

    def initial_memory(self) -> Weights:
        """The learned W0, primal, leaves [H, ...]."""
        return self.rule.constrain({name: leaf[...] for name, leaf in self.memory.items()})

    def init_state(self, batch: int, dtype=jnp.float32) -> LayerState:
        """The state before the first token."""
        return LayerState(
            memory=self._initial(self.initial_memory(), batch, dtype),
            conv=self.conv.init_state(batch, dtype) if self.conv else None,
            position=jnp.zeros(batch, jnp.int32) if self.config.rope else None,
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
        """Tokens x [B, T, width] to outputs of the same shape, the state after them, and health.

        Args:
            x: tokens, float32 or bfloat16.
            segment_ids: [B, T]; see `miras.scan`.
            mask: [B, T]; see `miras.scan`.
            state: where to go on from.
            segments_at_chunks: see `miras.engine.scan_with_loss`.
            depth: l / (L - 1) of layer l of L, for `decay_by_depth`.
            health: measure it; None is returned otherwise.
        """
        batch, length, _ = x.shape
        before = None if state is None else state.memory
        segments = self._segments(segment_ids, before, batch, length)
        mixed, conv_state = self.qkv(x), None
        if self.conv is not None:
            tail = None if state is None else state.conv
            mixed, conv_state = self.conv(
                mixed, segments, mask, tail or self.conv.init_state(batch, x.dtype)
            )
        if self.config.activation == "silu":
            mixed = jax.nn.silu(mixed)
        streams = self.keys(mixed, x)
        position = None
        if self.config.rope:
            first = jnp.zeros(batch, jnp.int32) if state is None else state.position
            assert first is not None
            at = first[:, None] + jnp.arange(length)
            q, k = (rotate(y, at, self.config.rope_base) for y in (streams.q, streams.k))
            streams, position = streams._replace(q=q, k=k), first + length

        gates = self.gates(x)
        if self.config.decay_by_depth:
            gates |= self._slower(gates, depth, batch, length)
        if self.config.lr_by_position:
            gates["lr"] = self._rate(gates, segments, before)
        W0 = self.initial_memory()
        y, memory, loss = scan_with_loss(
            self.rule,
            W0,
            streams.q,
            streams.k,
            streams.v,
            gates,
            chunk=self.chunk,
            refine=self.refine,
            exact=self.exact,
            k_write=streams.k_write,
            state=before,
            segment_ids=segment_ids,
            mask=mask,
            segments_at_chunks=segments_at_chunks,
            save_every=self.save_every,
            precision=self.precision,
        )
        y = (y if self.norm is None else self.norm(y)).reshape(batch, length, self.width)
        if self.gate is not None:
            y = y * jax.nn.silu(self.gate(x))
        y = self.out(y)
        measured = self._health(W0, before, memory, loss, gates, y) if health else None
        return y, LayerState(memory, conv_state, position), measured

    def _initial(self, W0: Weights, batch: int, dtype=jnp.float32) -> AnyState:
        head = self.width // self.heads
        memory = self.rule.memory
        if isinstance(memory, KV):
            return initial_kv_state(memory, batch, self.heads, head, head, dtype)
        kept = self.precision.kept(jnp.float32)
        return initial_state(self.rule, W0, batch, head, head, refine=self.refine, dtype=kept)

    def _segments(
        self, segment_ids: Array | None, before: AnyState | None, batch: int, length: int
    ) -> Array:
        """The ids, or the last one going on, [B, T]."""
        if segment_ids is not None:
            return segment_ids
        last = jnp.zeros(batch, jnp.int32)
        if before is not None:
            last = before.last_id if isinstance(before, KVState) else before.segment
        return jnp.broadcast_to(last[:, None], (batch, length))

    def _slower(
        self, gates: dict[str, Array], depth: Array | float, batch: int, length: int
    ) -> dict[str, Array]:
        """The log decays per head, times 1 - depth + 1e-5."""
        (decay,) = (gate for gate in self.rule.retention.gates() if gate.side == "head")
        held = jnp.asarray(decay.constant(self.heads), jnp.float32)
        log_decay = gates.get(decay.name, held) * (1 - depth + 1e-5)
        return {decay.name: jnp.broadcast_to(log_decay, (batch, length, self.heads))}

    def _rate(self, gates: dict[str, Array], segments: Array, before: AnyState | None) -> Array:
        """Eta_t times max(0, 1 / (1 + position in the chunk) + correction), [B, T, H]."""
        (rate,) = (gate for gate in self.rule.gates if gate.name == "lr")
        held = jnp.asarray(rate.constant(self.heads), jnp.float32)
        by_position = self._position_rate(segments, before, *segments.shape)
        return gates.get("lr", held) * by_position

    def _position_rate(
        self, segments: Array, state: AnyState | None, batch: int, length: int
    ) -> Array:
        """max(0, 1 / (1 + position in the chunk) + correction), [B, T, 1]."""
        zeros = jnp.zeros(batch, jnp.int32)
        start = (zeros, segments[:, 0])
        if isinstance(state, State):
            start = state.position, state.segment
        at = positions(segments, *start, length, self.chunk).position
        rate = jnp.maximum(0.0, 1 / (1 + jnp.arange(self.chunk)) + self.lr_correction[...])
        return rate[at][..., None]

    def _health(
        self,
        W0: Weights,
        before: AnyState | None,
        after: AnyState,
        loss: Array,
        gates: dict,
        y: Array,
    ) -> Health:
        norm = ratio = jnp.zeros(())
        if isinstance(after, State):
            start = self._initial(W0, y.shape[0]) if before is None else before
            assert isinstance(start, State)
            primal = after.A
            if not self.rule.retention.proximal:
                link = jax.vmap(jax.vmap(self.rule.retention.link))
                primal = {name: link(leaf) for name, leaf in after.A.items()}
            change = _norm_per_head(jax.tree.map(jnp.subtract, after.A, start.A))
            norm = _norm_per_head(primal)
            ratio = change / jnp.maximum(_norm_per_head(after.A), 1e-12)
        natural = {name.removeprefix("log_"): _natural(name, gate) for name, gate in gates.items()}
        return Health(
            inner_loss=jnp.mean(loss),
            memory_norm=jnp.mean(norm),
            update_ratio=jnp.mean(ratio),
            output_norm=jnp.sqrt(jnp.mean(jnp.square(y.astype(jnp.float32)))),
            gates={name: jnp.mean(gate) for name, gate in natural.items()},
        )


def _natural(name: str, gate: Array) -> Array:
    return jnp.exp(gate) if name.startswith("log_") else gate


def _norm_per_head(weights: Weights) -> Array:
    """Frobenius norm over all leaves [B, H, ...], [B, H]."""
    full = [leaf.astype(jnp.float32) for leaf in weights.values()]
    squares = [jnp.sum(leaf**2, axis=tuple(range(2, leaf.ndim))) for leaf in full]
    return jnp.sqrt(sum(squares))
