"""read: what memories answer as they stand, without a write."""

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Queries, Weights
from miras.config import require
from miras.engine import recursive_least_squares as least_squares
from miras.engine.readers import Plain
from miras.engine.state import State, split_fixed
from miras.engine.trajectory import link
from miras.optim import Newton
from miras.rule.rule import Rule
from miras.sequence.arrays import as_array, check_finite, check_float


def read(rule: Rule, W0: Weights, q: Queries, state: State) -> Array:
    """y_t = M(W, q_t) for every query, W = link(A) as the state holds it (DESIGN's update, read).

    This is Titans' retrieval M*(q) (2501.00663, section 3.1): a forward pass without a weight
    update. Nothing is written, and no decay or clock goes on.

    Args:
        rule: the four parts; any memory but kv, which has no weights to read.
        W0: initial primal weights, leaves [H, ...], of which only those are read that the memory
            never writes.
        q: queries [B, T, H, Dk], any T >= 1.
        state: of `miras.scan` with the same rule.

    Returns:
        [B, T, H, Dv] in the dtype of q.

    Raises:
        ConfigError: for a kv memory, and for queries that are no numbers or not finite.
    """
    require(
        not rule.memory.keeps_tokens and isinstance(state, State),
        f"read needs the state of a memory with weights: memory {rule.memory.kind!r} keeps tokens, "
        "which miras.scan attends to.",
    )
    q = as_array("q", q)
    check_float("q", q.dtype)
    check_finite("q", q)
    return answer(rule, W0, q, state.A)


def answer(rule: Rule, W0: Weights, q: Array, A: Weights) -> Array:
    """`read` from dual states, leaves [B, H, ...]."""
    _, fixed = split_fixed(rule, W0)
    dtype = jnp.promote_types(q.dtype, jax.tree.leaves(A)[0].dtype)
    fixed = {name: leaf.astype(dtype) for name, leaf in fixed.items()}

    def of_head(A: Weights, fixed: Weights, q: Array) -> Array:
        if isinstance(rule.algorithm, Newton):
            plain = Plain(A, fixed)
            x = rule.memory.features(plain, q)
            return plain.linear("w1", least_squares.solve(rule, lambda z: z @ A["H"], None, x))
        return rule.memory.apply(Plain(link(rule, A), fixed), q)

    of_row = jax.vmap(of_head, in_axes=(0, 0, 1), out_axes=1)
    return jax.vmap(of_row, in_axes=(0, None, 0))(A, fixed, q.astype(dtype)).astype(q.dtype)
