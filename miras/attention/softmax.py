"""Softmax attention over given keys: as written, by jax's own, and in a band of blocks.

What a query may see, and where keys come from, is the business of `attention`.
"""

import math

import jax
import jax.numpy as jnp

from miras.array_typing import Array


def attend(q: Array, k: Array, v: Array, sees: Array, scale: float, *, as_written: bool) -> Array:
    """softmax(scale q k^T) v over what each query sees; 0 where it sees nothing.

    Args:
        q: [B, T, H, Dk].
        k: [B, S, K, Dk]; each of the K heads serves H / K heads of queries, which are neighbours.
        v: [B, S, K, Dv].
        sees: [B, T, S] bool.
        scale: of the scores.
        as_written: compute it as written; else by jax's own attention, which sums in float32.

    Returns:
        [B, T, H, Dv].
    """
    if as_written or q.dtype == jnp.float64:
        return _as_written(q, k, v, sees, scale)
    dk, dv = k.shape[-1], v.shape[-1]
    if dv < dk:  # jax's own wants both of one width
        v = jnp.pad(v, [(0, 0)] * 3 + [(0, dk - dv)])
    elif dk < dv:
        q, k = (jnp.pad(x, [(0, 0)] * 3 + [(0, dv - dk)]) for x in (q, k))
    y = jax.nn.dot_product_attention(q, k, v, mask=sees[:, None], scale=scale)[..., :dv]
    return jnp.where(jnp.any(sees, axis=-1)[:, :, None, None], y, 0)


def _as_written(q: Array, k: Array, v: Array, sees: Array, scale: float) -> Array:
    k, v = (for_queries(x, q.shape[2]) for x in (k, v))
    scores = scale * jnp.einsum("bthd,bshd->bhts", q, k)
    scores = jnp.where(sees[:, None], scores, -jnp.inf)
    peak = jnp.max(jnp.where(sees[:, None], scores, -1e30), axis=-1, keepdims=True)
    weights = jnp.exp(scores - jax.lax.stop_gradient(peak))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1.0)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


def for_queries(x: Array, heads: int, axis: int = 2) -> Array:
    """Keys or values with each of their heads repeated for the heads of queries that it serves."""
    times = heads // x.shape[axis]
    return x if times == 1 else jnp.repeat(x, times, axis=axis)


def in_front(keys: Array, values: Array, sees: Array, k: Array, v: Array):
    """Keys, values and what is seen of them with P keys k [K, P, Dk] in front that all may see."""
    batch, length = sees.shape[:2]

    def join(front: Array, rest: Array) -> Array:
        front = jnp.swapaxes(front, 0, 1).astype(rest.dtype)
        return jnp.concatenate([jnp.broadcast_to(front, (batch, *front.shape)), rest], axis=1)

    free = jnp.ones((batch, length, k.shape[1]), bool)
    return join(k, keys), join(v, values), jnp.concatenate([free, sees], axis=2)


def in_blocks(x: Array, size: int, *, pairs: bool, count: int) -> Array:
    """[B, T, ...] as `count` blocks [B * count, size, ...], or each with the next one.

    A band of w keys lies inside two neighbouring blocks of w tokens, so attention with a window is
    attention inside pairs of blocks: linear in T.
    """
    whole = (count + pairs) * size
    x = jnp.pad(x, [(0, 0), (0, whole - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
    x = x.reshape(x.shape[0], count + pairs, size, *x.shape[2:])
    if pairs:
        x = jnp.concatenate([x[:, :-1], x[:, 1:]], axis=2)
    return x.reshape(-1, *x.shape[2:])


def blocks_of(length: int, size: int) -> int:
    """How many blocks of a size hold a length."""
    return math.ceil(length / size)
