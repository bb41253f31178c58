"""The reference backend: one token at a time, plain gradients, weights formed at every step.

Slow and obvious; the oracle for every other backend. It shares the parts with them and nothing of
the engine: no taps, no coefficients, no tiles.
"""

import jax
import jax.numpy as jnp

from miras.engine.layout import positions
from miras.engine.readers import Plain
from miras.engine.state import State, dual_start, initial_state, split_fixed
from miras.rule import Rule
from miras.typing import Array, Weights


def run(
    rule: Rule,
    W0: Weights,
    q: Array,
    k: Array,
    v: Array,
    gates: dict[str, Array],
    *,
    chunk: int,
    state: State | None,
    segment_ids: Array | None,
    mask: Array | None,
    segments_at_chunks: bool,
) -> tuple[Array, State, Array]:
    """All tokens, one by one; right wherever segments begin. See `miras.engine.xla.run`."""
    batch, length, _, _ = q.shape
    dtype = jnp.promote_types(jnp.float32, q.dtype)
    cast = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)  # noqa: E731
    fast, fixed = split_fixed(rule, cast(W0))
    start = initial_state(rule, W0, batch, dtype) if state is None else state
    at = positions(segment_ids, start.position, start.segment, length, chunk)
    write = jnp.ones((batch, length), bool) if mask is None else mask
    origin = dual_start(rule, fast)
    fire_at = 0 if rule.retention.lag else chunk - 1

    def link(A: Weights) -> Weights:
        return {name: rule.retention.link(leaf) for name, leaf in A.items()}

    def choose(condition: Array, new: Weights, old: Weights) -> Weights:
        return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)

    def read(W: Weights, x: Array, fixed: Weights) -> Array:
        return rule.memory.apply(Plain(W, fixed), x[None, :])[0]

    def one_head(fixed, origin, A, S, R, L, q, k, v, gates, write, reset, position):
        A = choose(reset, origin, A)
        S = None if S is None else choose(reset, jax.tree.map(jnp.zeros_like, S), S)
        R = choose(position == 0, link(A), R)
        L = None if L is None else choose(position == 0, link(A), L)

        alpha = jnp.exp(gates["log_decay"]) if "log_decay" in gates else jnp.ones((), dtype)
        mu = jnp.exp(gates["log_momentum"]) if "log_momentum" in gates else None
        threshold = gates["threshold"][None] if "threshold" in gates else None

        at_weights = R
        if rule.order == "decay_first":
            at_weights = jax.tree.map(lambda leaf: alpha * leaf, R)
        pred, vjp = jax.vjp(lambda W: read(W, k, fixed), at_weights)
        (g,) = vjp(rule.bias.residual(pred[None], v[None], threshold)[0])
        loss = jnp.where(write, rule.bias.loss(pred[None], v[None], threshold)[0], 0.0)

        step = {
            name: rule.algorithm.step((S or {}).get(name), mu, -gates["lr"] * g[name]) for name in A
        }
        A = choose(write, jax.tree.map(lambda a, s: alpha * a + s, A, step), A)
        S = None if S is None else choose(write, step, S)
        if L is not None:
            L = choose(write, jax.tree.map(lambda a, s: alpha * a + s, L, step), L)
            R = choose(position == fire_at, link(A), R)
            L = choose(position == fire_at, link(A), L)
        y = read(link(A) if L is None else L, q, fixed)
        return (A, S, R, L), (y, loss)

    over_heads = jax.vmap(one_head, in_axes=(0,) * 10 + (None, None, None))
    over_rows = jax.vmap(over_heads, in_axes=(None, None) + (0,) * 11)

    def token(memory, xs):
        return over_rows(fixed, origin, *memory, *xs)

    streams = (*cast((q, k, v, gates)), write, at.reset, at.position)
    by_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), streams)
    memory, (y, loss) = jax.lax.scan(token, (start.A, start.S, start.R, start.L), by_time)
    y, loss = jnp.moveaxis(y, 0, 1), jnp.moveaxis(loss, 0, 1)
    end = State(*memory, position=at.end_position, segment=at.end_segment)
    return y.astype(q.dtype), end, loss
