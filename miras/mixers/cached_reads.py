"""Reads of the current memory and of cached ones, combined with the weights of a mixture."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.iterate import link
from miras.engine.state import State
from miras.rule.rule import Rule
from miras.sequence.read import answer, answer_of_weights


class Shares(NamedTuple):
    """Weights of memories: of the current one [B, T, H], of the cached ones [B, T, H, E]."""

    own: Array
    cached: Array


def equal(visible: Array, heads: int, dtype) -> Shares:
    """1 for each memory that a token sees; `visible` is [B, T, E]."""
    batch, length, entries = visible.shape
    shares = jnp.broadcast_to(visible[:, :, None], (batch, length, heads, entries))
    return Shares(jnp.ones((batch, length, heads), dtype), shares.astype(dtype))


def softmax(own: Array, cached: Array, visible: Array) -> Shares:
    """The softmax of the scores of the current memory and of the visible ones.

    Args:
        own: scores of the current memory, [B, T, H].
        cached: of the cached ones, [B, T, H, E].
        visible: as `cached`, which of them take part.
    """
    scores = jnp.concatenate([own[..., None], jnp.where(visible, cached, -jnp.inf)], axis=-1)
    shares = jax.nn.softmax(scores, axis=-1)
    return Shares(shares[..., 0], shares[..., 1:])


def sparse(
    own: Array, cached: Array, visible: Array, most: int, over: Literal["selected", "all"]
) -> Shares:
    """`softmax` of the `most` visible memories with the largest scores and the current one.

    Args:
        own: as for `softmax`.
        cached: as for `softmax`.
        visible: as for `softmax`.
        most: number of memories; more where scores are equal.
        over: whether the softmax runs over the selected memories, or over all visible ones.
    """
    chosen = visible
    if most < cached.shape[-1]:
        scores = jnp.where(visible, jax.lax.stop_gradient(cached), -jnp.inf)
        chosen &= scores >= jax.lax.top_k(scores, most)[0][..., -1:]
    if over == "selected":
        return softmax(own, cached, chosen)
    shares = softmax(own, cached, visible)
    return shares._replace(cached=jnp.where(chosen, shares.cached, 0))


def weighted_reads(
    rule: Rule,
    W0: Weights,
    q: Array,
    gates: Mapping[str, Array],
    own: Array,
    memories: Weights,
    shares: Shares,
) -> Array:
    """sum_i share_i M(W_i, q), [B, T, H, Dv].

    Args:
        rule: the four parts.
        W0: initial weights, of which those are read that the memory never writes.
        q: queries [B, T, H, Dk].
        gates: of the rule.
        own: reads of the current memory, [B, T, H, Dv].
        memories: dual states of the cached ones, leaves [B, E, H, ...].
        shares: the weights.
    """

    @jax.checkpoint  # else the backward pass would keep the hidden layers of all reads
    def add(total: Array, entry: tuple[Weights, Array]):
        A, share = entry
        y = answer(rule, W0, q, A, gates)
        return total + share[..., None] * y.astype(total.dtype), None

    total = shares.own[..., None] * own.astype(shares.own.dtype)
    each = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), memories)
    total, _ = jax.lax.scan(add, total, (each, jnp.moveaxis(shares.cached, 3, 0)))
    return total.astype(q.dtype)


def soup(
    rule: Rule,
    W0: Weights,
    q: Array,
    gates: Mapping[str, Array],
    now: State,
    memories: Weights,
    shares: Shares,
) -> Array:
    """M(sum_i share_i W_i, q) for one token, [B, 1, H, Dv]; `now` is the state after its write."""
    of_heads = jax.vmap(jax.vmap(lambda A: link(rule, A)))  # over rows and heads
    current = of_heads(now.A) if now.L is None else now.L
    cached = jax.vmap(of_heads, in_axes=1, out_axes=1)(memories)
    own, others = shares.own[:, 0], shares.cached[:, 0]

    def average(own_leaf: Array, leaves: Array) -> Array:
        each = own.reshape(*own.shape, *[1] * (own_leaf.ndim - 2))
        return each * own_leaf + jnp.einsum("bhe,beh...->bh...", others, leaves)

    return answer_of_weights(rule, W0, q, jax.tree.map(average, current, cached), gates)
