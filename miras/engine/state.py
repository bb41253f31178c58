"""State: everything a memory carries from one call of `scan` to the next."""

import dataclasses

import jax
import jax.numpy as jnp

from miras.rule import Rule
from miras.typing import Array, Weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The state of B x H memories. A pytree; splitting a sequence anywhere is exact.

    Attributes:
        A: dual state, leaves [B, H, in, out] or [B, H, out], float32 (float64 for float64 inputs).
        S: momentum buffer, as A; None where the algorithm has none.
        R: the chunk's snapshot W_r, primal, at which gradients are taken.
        L: weights as read inside the chunk, where they follow a linear recursion of their own
            (a non-linear link with link_every="chunk"); None elsewhere.
        position: tokens read since the chunk began, [B], in [0, chunk).
        segment: id of the current segment, [B].
    """

    A: Weights
    S: Weights | None
    R: Weights
    L: Weights | None
    position: Array
    segment: Array


def split_fixed(rule: Rule, W0: Weights) -> tuple[Weights, Weights]:
    """W0 as (weights that the memory writes, weights that it only reads)."""
    fixed = {name: W0[name] for name in rule.memory.fixed}
    return {name: leaf for name, leaf in W0.items() if name not in fixed}, fixed


def dual_start(rule: Rule, fast: Weights) -> Weights:
    """unlink(W0) per head, leaves [H, ...]."""
    return {name: jax.vmap(rule.retention.unlink)(leaf) for name, leaf in fast.items()}


def initial_state(rule: Rule, W0: Weights, batch: int, dtype=jnp.float32) -> State:
    """The state before the first token, of `batch` rows."""
    fast, _ = split_fixed(rule, W0)

    def rows(leaf):
        return jnp.broadcast_to(leaf.astype(dtype), (batch, *leaf.shape))

    primal = {name: rows(leaf) for name, leaf in fast.items()}
    dual = {
        name: rows(leaf)
        for name, leaf in dual_start(
            rule, {name: leaf.astype(dtype) for name, leaf in fast.items()}
        ).items()
    }
    zeros = {name: jnp.zeros_like(leaf) for name, leaf in dual.items()}
    return State(
        A=dual,
        S=zeros if rule.algorithm.has_momentum else None,
        R=primal,
        L=primal if rule.reads_linearly else None,
        position=jnp.zeros(batch, jnp.int32),
        segment=jnp.zeros(batch, jnp.int32),
    )
