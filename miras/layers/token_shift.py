"""TokenShift: mixes each token with the one before it, for several streams."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.conv import ConvState, last_inputs
from miras.layers.coupled_gates import middles
from miras.layers.param import param
from miras.layers.weight_gradients import spread


class TokenShift(nnx.Module):
    """x_t + mu_s (x_{t-1} - x_t) for each stream s, within a segment; 0 is before its first token.

    The token shift of RWKV (2503.14456, eq. 3). mu_s is learned per channel, and starts evenly
    spaced in (0, 1) over the channels.

    Args:
        names: of the streams.
        width: of the tokens.
    """

    def __init__(self, names: Sequence[str], width: int):
        self.width = width
        self.share = nnx.Dict({name: param(middles(width), ("embed",)) for name in names})

    def init_state(self, batch: int, dtype) -> ConvState:
        """The initial state, zeros: that of a convolution over two tokens."""
        return ConvState(jnp.zeros((batch, 1, self.width), dtype), jnp.zeros((batch, 1), jnp.int32))

    def __call__(
        self, x: Array, segments: Array, count: Array | None, state: ConvState | None
    ) -> tuple[dict[str, Array], ConvState]:
        """Mix tokens x [B, T, width].

        Args:
            x: tokens.
            segments: ids [B, T].
            count: [B], number of tokens of each row, before its padding; None without padding.
            state: of the token before x; the initial one if None.

        Returns:
            The mixed tokens of each stream, as x, and the state after the last token.
        """
        state = self.init_state(x.shape[0], x.dtype) if state is None else state
        inputs = jnp.concatenate([state.inputs.astype(x.dtype), x], axis=1)
        ids = jnp.concatenate([state.segments, segments.astype(jnp.int32)], axis=1)
        same = (ids[:, :-1] == segments)[..., None]
        change = jnp.where(same, inputs[:, :-1], 0) - x
        mixed = {name: x + spread(mu[...], x) * change for name, mu in self.share.items()}
        return mixed, last_inputs(inputs, ids, 1, count)
