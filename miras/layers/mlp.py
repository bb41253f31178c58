"""MLP: a feed-forward half of a block without a gate, optionally after a token shift."""

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.engine.masking import compact
from miras.layers.conv import ConvState
from miras.layers.param import LinearGeneral
from miras.layers.token_shift import TokenShift

ACTIVATIONS = {
    "squared_relu": lambda z: jnp.square(jax.nn.relu(z)),  # 2109.08668
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


class FeedForward(nnx.Module):
    """act(x @ up) @ down.

    Args:
        width: of the tokens.
        hidden: width of the hidden layer.
        activation: a name of `ACTIVATIONS`.
        rngs: stream `params`.
    """

    def __init__(self, width: int, hidden: int, activation: str, rngs: nnx.Rngs):
        self.up = LinearGeneral((width, hidden), ("embed", "mlp"), rngs)
        self.down = LinearGeneral((hidden, width), ("mlp", "embed"), rngs)
        self.activation = activation

    def __call__(self, x: Array) -> Array:
        """Map x [..., width] to [..., width]."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class ShiftedMLP(nnx.Module):
    """An MLP of tokens that are mixed with the ones before them: the channel mixing of RWKV.

    Args:
        width: of the tokens.
        mlp: maps [B, T, width] to the same shape.
    """

    def __init__(self, width: int, mlp: FeedForward):
        self.shift, self.mlp = TokenShift(("up",), width), mlp

    def init_state(self, batch: int, dtype) -> ConvState:
        """The initial state."""
        return self.shift.init_state(batch, dtype)

    def __call__(
        self,
        x: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: ConvState | None = None,
    ) -> tuple[Array, ConvState]:
        """Map x [B, T, width]; the arguments are those of `miras.layers.MemoryLayer`.

        Returns:
            y, as x, and the state after the last token.
        """
        last = jnp.zeros(x.shape[0], jnp.int32) if state is None else state.segments[:, -1]
        rows = None if mask is None else compact(mask)
        if rows is not None:
            x = rows.packed(x)
            segment_ids = None if segment_ids is None else rows.ids(segment_ids, last)
        ids = jnp.broadcast_to(last[:, None], x.shape[:2]) if segment_ids is None else segment_ids
        mixed, after = self.shift(x, ids, None if rows is None else rows.count, state)
        y = self.mlp(mixed["up"])
        return y if rows is None else rows.spread(y), after
