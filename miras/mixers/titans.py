r"""Titans: four ways to combine a memory with attention, for any miras rule.

Behrouz et al., arXiv 2501.00663, section 4. M is a memory with its projections, M* reads it without
a write; p are persistent tokens, x the tokens, || concatenates, * is the gate below.

LMM, the memory alone (3.1):

    o = M(x)

MAC, memory as a context, over segments S of the text (4.1, equations 21 to 25):

    h_t = M*_{t-1}(S_t W_Q)                       (21)   the memory before the segment
    y_t = Attn([p || h_t || S_t])                 (22, 23)
    M_t = M_{t-1}(y_t)                            (24)   write the attention's output
    o_t = y_t * M*_t(y_t)                         (25)   read with it, no query projection

MAG, memory as a gate (4.2, equations 26 to 28):

    o = SWAttn([p || x]) * M(x)

MAL, memory as a layer (4.3, equations 29 to 31):

    o = SWAttn([p || M(x)])

Choices where the paper is ambiguous or inconsistent:

- The gate "normalises the outputs with learnable vector-valued weights, followed by a
  non-linearity": y * m = RMSNorm(y) sigmoid(RMSNorm(m)), in MAC and in MAG.
- As printed, MAC is not causal within a segment, in two places. Here token j attends to h_i and
  x_i for i <= j only, and (25) reads the memory after y_1 .. y_j (`read="token"`).
- Equations 26 and 29 also write p into M at the start of a text, and 31 attends to M(p). The result
  of that write depends on parameters only, as the learned initial memory does. So the initial
  memory is learned, and p is used in attention only, as learned keys and values.
- MAC normalises h before attention, as it does x. MAL's attention reads the memory's output without
  a norm: a norm would increase the outer gradient at initialisation by half.
- MAC's positions are those of its sequence [p || h || S]; persistent tokens of sliding-window
  attention have no position.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers import AttentionConfig, Health, LayerConfig, LayerState, MemoryConfig, MemoryLayer
from miras.layers.norm import RMSNorm


class TitansState(NamedTuple):
    """The states of a memory and of the sliding-window attention combined with it."""

    memory: LayerState
    attention: LayerState


class Gating(nnx.Module):
    """RMSNorm(y) sigmoid(RMSNorm(m)): Titans' product of attention and memory."""

    def __init__(self, width: int):
        self.of_y = RMSNorm((width,), ("embed",))
        self.of_m = RMSNorm((width,), ("embed",))

    def __call__(self, y: Array, m: Array) -> Array:
        """Gate y with m, both [B, T, width]."""
        return self.of_y(y) * jax.nn.sigmoid(self.of_m(m))


class _MemoryWithAttention(nnx.Module):
    """A memory and a sliding-window attention with persistent tokens."""

    def __init__(
        self,
        memory: MemoryConfig,
        layer: LayerConfig,
        attention: AttentionConfig,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
    ):
        self.memory = MemoryLayer(memory, width, heads, config=layer, rngs=rngs)
        of_window = MemoryConfig(attention.rule(), backend=memory.backend)
        self.attention = MemoryLayer(of_window, width, heads, config=attention.layer, rngs=rngs)

    def init_state(self, batch: int, dtype=jnp.float32) -> TitansState:
        """The initial state."""
        parts = self.memory, self.attention
        return TitansState(*(part.init_state(batch, dtype) for part in parts))


class MAG(_MemoryWithAttention):
    """Memory as a gate, equations 26 to 28 of the module."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gating = Gating(self.memory.out.kernel.shape[-1])

    def __call__(
        self, x: Array, *, state: TitansState | None = None, health: bool = False, **call
    ) -> tuple[Array, TitansState, Health | None]:
        """Apply both branches to x [B, T, width] and gate; see `MemoryLayer.__call__`."""
        before = (None, None) if state is None else state
        m, of_memory, measured = self.memory(x, state=before[0], health=health, **call)
        y, of_attention, _ = self.attention(x, state=before[1], **call)
        return self.gating(y, m), TitansState(of_memory, of_attention), measured


class MAL(_MemoryWithAttention):
    """Memory as a layer, equations 29 to 31 of the module."""

    def __call__(
        self, x: Array, *, state: TitansState | None = None, health: bool = False, **call
    ) -> tuple[Array, TitansState, Health | None]:
        """Attention over the memory's output on x [B, T, width]; see `MemoryLayer.__call__`."""
        before = (None, None) if state is None else state
        m, of_memory, measured = self.memory(x, state=before[0], health=health, **call)
        y, of_attention, _ = self.attention(m, state=before[1], **call)
        return y, TitansState(of_memory, of_attention), measured
