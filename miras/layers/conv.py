"""Depthwise causal convolution over time, with state and segments."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.engine.masking import take_tokens
from miras.layers.param import Axes, normal, param
from miras.layers.weight_gradients import spread


class ConvState(NamedTuple):
    """The last width - 1 inputs and their segment ids: [B, width - 1, *shape], [B, width - 1]."""

    inputs: Array
    segments: Array


class CausalConv(nnx.Module):
    """y_t = sum_{j < width} kernel[j] * x_{t-j} [+ bias], per channel, within a segment.

    Args:
        shape: shape of a token's channels.
        axes: logical names of these axes.
        width: kernel size; 4 in MIRAS (2504.13173), section 5.3, and in Mamba.
        rngs: stream `params`.
        bias: whether there is a bias per channel, 0 at the start.
    """

    def __init__(
        self, shape: tuple[int, ...], axes: Axes, width: int, rngs: nnx.Rngs, *, bias: bool = False
    ):
        self.shape, self.width = shape, width
        self.bias = param(jnp.zeros(shape), axes) if bias else None
        self.kernel = normal(rngs, (width, *shape), (None, *axes), width**-0.5)
        self.kernel.set_metadata(depthwise=True)  # not a matrix: no sum over channels

    def init_state(self, batch: int, dtype) -> ConvState:
        """The initial state, zeros."""
        tail = self.width - 1
        return ConvState(
            jnp.zeros((batch, tail, *self.shape), dtype), jnp.zeros((batch, tail), jnp.int32)
        )

    def __call__(
        self, x: Array, segments: Array, count: Array | None, state: ConvState
    ) -> tuple[Array, ConvState]:
        """Convolve x [B, T, *shape].

        Args:
            x: inputs.
            segments: ids [B, T].
            count: [B], number of tokens of each row, before its padding; None without padding.
            state: the last inputs before x.

        Returns:
            y, as x, and the state after the last token.
        """
        per_token = (slice(None), slice(None), *[None] * len(self.shape))
        inputs = jnp.concatenate([state.inputs.astype(x.dtype), x], axis=1)
        ids = jnp.concatenate([state.segments, segments.astype(jnp.int32)], axis=1)
        length, tail = x.shape[1], self.width - 1
        kernel = self.kernel[...]
        y = spread(kernel[0], x) * x
        for lag in range(1, self.width):
            past = slice(tail - lag, tail - lag + length)
            same = (ids[:, past] == segments)[per_token]
            y = y + jnp.where(same, spread(kernel[lag], x) * inputs[:, past], 0)
        if self.bias is not None:
            y = y + spread(self.bias[...], y)
        return y, last_inputs(inputs, ids, tail, count)


def last_inputs(inputs: Array, ids: Array, tail: int, count: Array | None) -> ConvState:
    """The state after T tokens.

    Args:
        inputs: those of the state before, and the tokens: [B, tail + T, ...].
        ids: their segment ids, [B, tail + T].
        tail: number of inputs that a state keeps.
        count: [B], number of tokens of each row, before its padding; None without padding.
    """
    if count is None:
        length = inputs.shape[1] - tail
        return ConvState(inputs[:, length:], ids[:, length:])
    last = count[:, None] + jnp.arange(tail)  # the last inputs, after the previous ones
    return ConvState(take_tokens(inputs, last), take_tokens(ids, last))
