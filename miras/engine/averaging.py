"""Averages: r_t of each token where an algorithm averages a chunk's steps (`optim.GD.averaged`).

r_t goes with the tokens as a gate does. A masked token and an empty slot hold the r_t of the token
that was written before them, since the memory stays as that token left it; before a row's first
token nothing is written, and r_t is unused.
"""

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.layout import Positions

AVERAGE = "average"  # its name among the gates of a tile; no part declares it


def by_position(chunk: int, dtype) -> Array:
    """1 / (1 + i) for the positions i of a chunk, [C]: the mean of the steps so far."""
    return 1 / (1 + jnp.arange(chunk, dtype=dtype))


def averages(average: Array, at: Positions, write: Array, heads: int) -> Array:
    """r_t of each token and head, [B, T, H].

    Args:
        average: r by position in the chunk, [C].
        at: where the tokens stand.
        write: [B, T], whether a token is written.
        heads: H.
    """
    own = average[at.position]
    time = jnp.arange(own.shape[1])
    latest = jax.lax.cummax(jnp.where(write > 0, time, -1), axis=1)
    held = jnp.take_along_axis(own, jnp.maximum(latest, 0), axis=1)
    return jnp.repeat(held[..., None], heads, axis=-1)


def pad_with_last(x: Array, size: int) -> Array:
    """[B, T, ...] with the last token's value in the slots after it, [B, size, ...]."""
    if size == x.shape[1]:
        return x
    return jnp.pad(x, ((0, 0), (0, size - x.shape[1]), *[(0, 0)] * (x.ndim - 2)), mode="edge")
