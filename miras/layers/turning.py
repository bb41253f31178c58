"""Turning: the angles of a rotary embedding whose tokens each turn it further."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import LinearGeneral

TURN = 2 * np.pi


class CumulativeAngles(nnx.Module):
    """theta_t = theta_{t-1} + pi tanh(x_t W) eta_t for each pair of channels, from 0.

    Mamba-3 (2603.15569), as its code computes it: rotating keys and queries by theta makes the
    state of a pair of channels complex, with a transition that turns by the angle of the token. The
    projection W is shared by the heads, the rate eta_t is that of a head.

    Angles are held in [-pi, pi], so that float32 is as exact late in a sequence as early.

    Args:
        width: of the tokens.
        heads: H, each of width / heads.
        rngs: stream `params`.
    """

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.pairs, self.heads = width // heads // 2, heads
        self.kernel = LinearGeneral((width, self.pairs), ("embed", None), rngs)

    def init_state(self, batch: int, dtype) -> Array:
        """Angles of 0, [B, H, pairs]."""
        return jnp.zeros((batch, self.heads, self.pairs), jnp.promote_types(jnp.float32, dtype))

    def __call__(
        self, x: Array, rate: Array, *, begins: Array, mask: Array | None, state: Array
    ) -> tuple[Array, Array]:
        """The angles of tokens, and those after the last one.

        Args:
            x: tokens [B, T, width].
            rate: eta [B, T, H].
            begins: [B, T], whether a token is the first of its document.
            mask: [B, T], False for padding, which turns nothing; None without.
            state: angles before the first token, [B, H, pairs].

        Returns:
            [B, T, H, pairs] and [B, H, pairs].
        """
        x = x.astype(state.dtype)
        turns = (np.pi * jnp.tanh(self.kernel(x)))[:, :, None] * rate.astype(x.dtype)[..., None]
        if mask is not None:
            turns, begins = jnp.where(mask[..., None, None], turns, 0), begins & mask
        if not x.shape[1]:
            return turns, state
        begins = jnp.broadcast_to(begins[..., None, None], turns.shape)
        total, begun = jax.lax.associative_scan(_joined, (wrapped(turns), begins), axis=1)
        angles = jnp.where(begun, total, wrapped(total + state[:, None]))
        return angles, angles[:, -1]


def wrapped(angle: Array) -> Array:
    """The angle plus whole turns, in [-pi, pi]."""
    return angle - TURN * jnp.round(angle / TURN)


def _joined(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """The turns of two runs of tokens, and whether a document begins in them."""
    (a, a_begins), (b, b_begins) = earlier, later
    return jnp.where(b_begins, b, wrapped(a + b)), a_begins | b_begins
