"""A token mixer: a decaying mean of the tokens."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from miras.layers.param import LinearGeneral, param
from miras.mixers import TokenMixer, register


@register("decaying_mean")
@dataclasses.dataclass(frozen=True)
class DecayingMean(TokenMixer):
    """h_t = a h_{t-1} + (1 - a) x_t W, y_t = h_t, a = sigmoid(decay) per channel, learned.

    Attributes:
        start: the decay where it starts.
    """

    uses = ()
    measures = False
    start: float = 1.0

    def build(self, config, width, heads, rngs):
        """The layer."""
        return Mean(self.start, width, rngs)


class Mean(nnx.Module):
    """The state is h and the segment of the last token."""

    def __init__(self, start, width, rngs):
        self.into = LinearGeneral((width, width), ("embed", "heads"), rngs)
        self.decay = param(jnp.full(width, start), ("heads",))

    def init_state(self, batch, dtype=jnp.float32):
        """Zeros."""
        return jnp.zeros((batch, self.decay.shape[0]), dtype), jnp.zeros(batch, jnp.int32)

    def __call__(self, x, *, state=None, segment_ids=None, mask=None, **call):
        """Read x [B, T, width] token by token."""
        state = self.init_state(len(x), x.dtype) if state is None else state
        ids = jnp.broadcast_to(state[1][:, None], x.shape[:2])
        ids = ids if segment_ids is None else segment_ids.astype(jnp.int32)
        there = jnp.ones(x.shape[:2], bool) if mask is None else mask
        a = jax.nn.sigmoid(self.decay[...]).astype(x.dtype)

        def read(state, token):
            (h, last), (x, own, there) = state, token
            h = a * jnp.where((own == last)[:, None], h, 0) + (1 - a) * x
            after = jnp.where(there[:, None], h, state[0]), jnp.where(there, own, last)
            return after, jnp.where(there[:, None], h, 0)

        by_time = jax.tree.map(lambda z: z.swapaxes(0, 1), (self.into(x), ids, there))
        state, y = jax.lax.scan(read, state, by_time)
        return y.swapaxes(0, 1), state, None
