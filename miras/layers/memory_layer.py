"""MemoryLayer: a rule as a sequence layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.config import require
from miras.engine import State, initial_state, scan_with_loss
from miras.engine.layout import positions
from miras.layers.conv import CausalConv, ConvState
from miras.layers.gates import GateProjections
from miras.layers.norm import RMSNorm, l2_normalise
from miras.layers.param import Linear, param
from miras.rule import Rule
from miras.typing import Array, Weights


class LayerState(NamedTuple):
    """What the layer carries between calls: the memories and the convolution's tail."""

    memory: State
    conv: ConvState | None


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
    """q, k, v projections, convolution, gates, memory, output norm, output gate, projection.

    MIRAS (2504.13173), section 5.3 and figure 2. q and k are l2-normalised per head; the gates are
    those that the rule's parts declare as learned; the initial memory is learned.

    Args:
        rule: the memory's four parts.
        width: of the tokens; must be a multiple of heads.
        heads: H memories of width / heads.
        chunk: C of the rule.
        conv: taps of the convolution on q, k and v; 0 for none.
        activation: "silu" after the convolution (Titans), or None.
        lr_by_position: divide eta by 1 + the token's position in its chunk, with a learned
            correction per position (TTT, 2407.04620).
        rngs: stream `params`.
    """

    def __init__(
        self,
        rule: Rule,
        width: int,
        heads: int,
        *,
        chunk: int,
        conv: int = 4,
        activation: str | None = None,
        lr_by_position: bool = False,
        rngs: nnx.Rngs,
    ):
        require(width % heads == 0, f"width={width} must be a multiple of heads={heads}.")
        self.rule, self.width, self.heads, self.chunk = rule, width, heads, chunk
        self.activation, self.lr_by_position = activation, lr_by_position
        head = width // heads
        axes = (None, "heads", None)
        self.qkv = Linear((width, 3, heads, head), ("embed", *axes), rngs)
        self.conv = CausalConv((3, heads, head), axes, conv, rngs) if conv else None
        self.gates = GateProjections(rule, width, heads)
        raw = rule.init_raw(rngs.params(), head, head, heads)
        self.memory = nnx.Dict(
            {n: param(w, ("heads",) + (None,) * (w.ndim - 1)) for n, w in raw.items()}
        )
        if lr_by_position:
            self.lr_correction = param(jnp.zeros(chunk), (None,))
        # The eps bounds the gain on reads near 0, as of a query that matches no key yet: with 1e-6
        # they alone make the outer gradient of a matrix memory eight times larger.
        self.norm = RMSNorm((heads, head), ("heads", None), eps=1e-3)
        self.gate = Linear((width, width), ("embed", "heads"), rngs)
        self.out = Linear((width, width), ("heads", "embed"), rngs)

    def initial_memory(self) -> Weights:
        """The learned W0, primal, leaves [H, ...]."""
        return self.rule.constrain({name: leaf[...] for name, leaf in self.memory.items()})

    def init_state(self, batch: int, dtype=jnp.float32) -> LayerState:
        """The state before the first token."""
        memory = initial_state(self.rule, self.initial_memory(), batch)
        return LayerState(memory, self.conv.init_state(batch, dtype) if self.conv else None)

    def __call__(
        self,
        x: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: LayerState | None = None,
        segments_at_chunks: bool = False,
        health: bool = False,
    ) -> tuple[Array, LayerState, Health | None]:
        """Tokens x [B, T, width] to outputs of the same shape, the state after them, and health.

        Args:
            x: tokens, float32 or bfloat16.
            segment_ids: [B, T]; see `miras.scan`.
            mask: [B, T]; see `miras.scan`.
            state: where to go on from.
            segments_at_chunks: see `miras.engine.scan_with_loss`.
            health: measure it; None is returned otherwise.
        """
        batch, length, _ = x.shape
        memory_state = None if state is None else state.memory
        segments = segment_ids
        if segments is None:
            last = jnp.zeros(batch, jnp.int32) if memory_state is None else memory_state.segment
            segments = jnp.broadcast_to(last[:, None], (batch, length))
        mixed, conv_state = self.qkv(x), None
        if self.conv is not None:
            conv_state = None if state is None else state.conv
            before = conv_state or self.conv.init_state(batch, x.dtype)
            mixed, conv_state = self.conv(mixed, segments, mask, before)
        if self.activation == "silu":
            mixed = jax.nn.silu(mixed)
        q, k, v = l2_normalise(mixed[:, :, 0]), l2_normalise(mixed[:, :, 1]), mixed[:, :, 2]

        gates = self.gates(x)
        if self.lr_by_position:
            (rate,) = (g for g in self.rule.gates if g.name == "lr")
            held = jnp.asarray(rate.constant(self.heads), jnp.float32)
            by_position = self._position_rate(segments, memory_state, batch, length)
            gates["lr"] = gates.get("lr", held) * by_position
        W0 = self.initial_memory()
        y, memory, loss = scan_with_loss(
            self.rule,
            W0,
            q,
            k,
            v,
            gates,
            chunk=self.chunk,
            state=memory_state,
            segment_ids=segment_ids,
            mask=mask,
            segments_at_chunks=segments_at_chunks,
        )
        y = self.norm(y).reshape(batch, length, self.width) * jax.nn.silu(self.gate(x))
        y = self.out(y)
        measured = self._health(W0, memory_state, memory, loss, gates, y) if health else None
        return y, LayerState(memory, conv_state), measured

    def _position_rate(
        self, segments: Array, state: State | None, batch: int, length: int
    ) -> Array:
        """max(0, 1 / (1 + position in the chunk) + correction), [B, T, 1]."""
        zeros = jnp.zeros(batch, jnp.int32)
        start = (zeros, segments[:, 0]) if state is None else (state.position, state.segment)
        at = positions(segments, *start, length, self.chunk).position
        rate = jnp.maximum(0.0, 1 / (1 + jnp.arange(self.chunk)) + self.lr_correction[...])
        return rate[at][..., None]

    def _health(
        self, W0: Weights, before: State | None, after: State, loss: Array, gates: dict, y: Array
    ) -> Health:
        batch = y.shape[0]
        start = initial_state(self.rule, W0, batch) if before is None else before
        link = jax.vmap(jax.vmap(self.rule.retention.link))
        primal = {name: link(leaf) for name, leaf in after.A.items()}
        change = jax.tree.map(jnp.subtract, after.A, start.A)
        norm = _norm_per_head(after.A)
        natural = {name.removeprefix("log_"): _natural(name, gate) for name, gate in gates.items()}
        return Health(
            inner_loss=jnp.mean(loss),
            memory_norm=jnp.mean(_norm_per_head(primal)),
            update_ratio=jnp.mean(_norm_per_head(change) / jnp.maximum(norm, 1e-12)),
            output_norm=jnp.sqrt(jnp.mean(jnp.square(y.astype(jnp.float32)))),
            gates={name: jnp.mean(gate) for name, gate in natural.items()},
        )


def _natural(name: str, gate: Array) -> Array:
    return jnp.exp(gate) if name.startswith("log_") else gate


def _norm_per_head(weights: Weights) -> Array:
    """Frobenius norm over all leaves [B, H, ...], [B, H]."""
    squares = [jnp.sum(leaf**2, axis=tuple(range(2, leaf.ndim))) for leaf in weights.values()]
    return jnp.sqrt(sum(squares))
