r"""Titans: four ways of putting a memory beside attention, for any miras rule as the memory.

Behrouz et al., arXiv 2501.00663, section 4. M is a memory with its projections, M* the same read
without a write; p are persistent tokens, x the tokens, || puts side by side, * is the gate below.

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

Where the paper is silent or slips:

- The gate "normalises the outputs with learnable vector-valued weights, followed by a
  non-linearity": y * m = RMSNorm(y) sigmoid(RMSNorm(m)), in MAC and in MAG.
- As printed, MAC sees the future inside a segment, twice. Here token j attends to h_i and x_i for
  i <= j only, and (25) reads the memory after y_1 .. y_j (`read="token"`).
- Equations 26 and 29 also write p into M at the start of a text, and 31 attends to M(p). What they
  leave there depends on parameters alone, as does the learned memory that a text starts from, so
  the start is learned as it is, and p enters attention only, as learned keys and values.
- MAC's attention reads h behind a norm, as it does x. MAL's reads the memory's output as it is: a
  norm there makes the outer gradient at the start half as large again.
- MAC's positions are those of its sequence [p || h || S]; persistent tokens before a sliding window
  have none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers import AttentionConfig, Health, LayerConfig, LayerState, MemoryConfig, MemoryLayer
from miras.layers.norm import RMSNorm


class BesideState(NamedTuple):
    """The state of a memory and of the sliding-window attention beside or behind it."""

    memory: LayerState
    attention: LayerState


class Gating(nnx.Module):
    """RMSNorm(y) sigmoid(RMSNorm(m)): Titans' product of attention and memory."""

    def __init__(self, width: int):
        self.of_y = RMSNorm((width,), ("embed",))
        self.of_m = RMSNorm((width,), ("embed",))

    def __call__(self, y: Array, m: Array) -> Array:
        """[B, T, width] of both."""
        return self.of_y(y) * jax.nn.sigmoid(self.of_m(m))


class _Beside(nnx.Module):
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

    def init_state(self, batch: int, dtype=jnp.float32) -> BesideState:
        """The state before the first token."""
        parts = self.memory, self.attention
        return BesideState(*(part.init_state(batch, dtype) for part in parts))


class MAG(_Beside):
    """Memory as a gate, equations 26 to 28 of the module."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gating = Gating(self.memory.out.kernel.shape[-1])

    def __call__(
        self, x: Array, *, state: BesideState | None = None, health: bool = False, **call
    ) -> tuple[Array, BesideState, Health | None]:
        """Both branches on x [B, T, width], and their product; see `MemoryLayer.__call__`."""
        before = (None, None) if state is None else state
        m, of_memory, measured = self.memory(x, state=before[0], health=health, **call)
        y, of_attention, _ = self.attention(x, state=before[1], **call)
        return self.gating(y, m), BesideState(of_memory, of_attention), measured


class MAL(_Beside):
    """Memory as a layer, equations 29 to 31 of the module."""

    def __call__(
        self, x: Array, *, state: BesideState | None = None, health: bool = False, **call
    ) -> tuple[Array, BesideState, Health | None]:
        """Attention over what the memory makes of x [B, T, width]; see `MemoryLayer.__call__`."""
        before = (None, None) if state is None else state
        m, of_memory, measured = self.memory(x, state=before[0], health=health, **call)
        y, of_attention, _ = self.attention(m, state=before[1], **call)
        return y, BesideState(of_memory, of_attention), measured
