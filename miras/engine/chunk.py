"""THE chunk step: the memory update of miras, written once.

A pure function of one head's memory and one run of tokens inside one chunk. Backends differ in how
they trace it, presets in the rule that they pass; nothing else updates a memory, but for the
per-token oracle in `reference`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.engine.readers import (
    DualForm,
    Kind,
    PerToken,
    Plain,
    Writes,
    factored_gradients,
    weighted_sum,
)
from miras.memory import Reader
from miras.optim.coefficients import Coefficients
from miras.rule import Rule
from miras.typing import Array, Weights


class Fast(NamedTuple):
    """One head's memory: dual state A, momentum S, snapshot R, in-chunk weights L (see `State`)."""

    A: Weights
    S: Weights | None
    R: Weights
    L: Weights | None


class Tile(NamedTuple):
    """A run of C tokens of one head that lie in one chunk.

    Attributes:
        q, k, v: [C, D].
        gates: by name, [C], logs for decay and momentum.
        write: [C], 1 or 0: whether the token writes and decays.
        fresh: scalar bool: the run begins a chunk, so the snapshot is taken anew; None says that
            it always does.
        fire: scalar bool: with a link per chunk, it fires after the run's last token.
    """

    q: Array
    k: Array
    v: Array
    gates: dict[str, Array]
    write: Array
    fresh: Array | None
    fire: Array


def select(condition: Array | None, new: Weights, old: Weights) -> Weights:
    """The new weights where the scalar condition holds (None: always), the old elsewhere."""
    if condition is None:
        return new
    return {name: jnp.where(condition, new[name], old[name]) for name in old}


def link(rule: Rule, A: Weights) -> Weights:
    """The primal weights of a dual state."""
    return {name: rule.retention.link(leaf) for name, leaf in A.items()}


def chunk_step(rule: Rule, fixed: Weights, fast: Fast, tile: Tile) -> tuple[Fast, Array, Array]:
    """Write a run of tokens into a memory and read it after each of them.

        X_s, D_s        factored gradients of loss(M(R, k_s), v_s)
        E_s             write_s eta_s D_s
        y_t             M(W_t, q_t), W_t = beta_t W_0 + p_t S_0 - sum_{s<=t} c[t,s] X_s^T E_s

    Args:
        rule: the four parts.
        fixed: weights that only the outer loop trains.
        fast: the memory before the run.
        tile: the tokens.

    Returns:
        The memory after the run, y [C, dv], and the inner loss of each token at the snapshot [C].
    """
    write = tile.write
    log_decay = _unless_masked(tile.gates.get("log_decay"), write)
    log_momentum = _unless_masked(tile.gates.get("log_momentum"), write)
    threshold = tile.gates.get("threshold")
    coefficients = rule.algorithm.coefficients(log_decay, log_momentum, write)

    A, S, R, L = fast
    momenta = S or {}
    fresh = link(rule, A)
    R = select(tile.fresh, fresh, R)
    L = A if L is None else select(tile.fresh, fresh, L)

    decay_first = rule.order == "decay_first" and log_decay is not None
    factor = jnp.exp(log_decay)[:, None] if decay_first else None  # pyright: ignore
    writes, kinds, pred = factored_gradients(
        rule.memory,
        Plain(R, fixed, factor),
        tile.k,
        lambda pred: rule.bias.residual(pred, tile.v, threshold),
    )
    loss = write * rule.bias.loss(pred, tile.v, threshold)
    rate = (write * tile.gates["lr"])[:, None]
    writes = {name: w._replace(E=rate * w.E) for name, w in writes.items()}

    reader: Reader
    if rule.links_every_token:
        steps = {
            n: states_per_token(A[n], momenta.get(n), writes, coefficients, n, kinds) for n in A
        }
        reader = PerToken(jax.vmap(lambda A: link(rule, A))(steps), fixed)
    else:
        reader = DualForm(L, S, writes, coefficients, fixed)
    y = rule.memory.apply(reader, tile.q)

    end = last_row(coefficients)
    A = {n: state_at(end, A[n], momenta.get(n), writes, n, kinds) for n in A}
    if rule.reads_linearly:
        L = {n: state_at(end, L[n], momenta.get(n), writes, n, kinds) for n in L}
        linked = link(rule, A)
        R, L = select(tile.fire, linked, R), select(tile.fire, linked, L)
        true_read = rule.memory.apply(Plain(linked, fixed), tile.q)
        is_last = (jnp.arange(y.shape[0]) == y.shape[0] - 1)[:, None]
        y = jnp.where(is_last & tile.fire, true_read, y)
    else:
        L = None
    if S is not None:
        S = {n: momentum_at(end, S[n], writes, n, kinds) for n in S}
    return Fast(A, S, R, L), y, loss


def _unless_masked(log_gate: Array | None, write: Array) -> Array | None:
    return None if log_gate is None else jnp.where(write > 0, log_gate, 0.0)


def last_row(coefficients: Coefficients) -> Coefficients:
    """The coefficients of the last token: c and n [C], the rest scalars.

    A masked sum instead of an index, since Triton has no static slice.
    """
    size = coefficients.beta.shape[0]
    last = (jnp.arange(size) == size - 1).astype(coefficients.beta.dtype)
    return Coefficients(*(None if c is None else last @ c for c in coefficients))  # pyright: ignore


def state_at(
    at: Coefficients,
    start: Array,
    momentum: Array | None,
    writes: Writes,
    name: str,
    kinds: dict[str, Kind],
) -> Array:
    """Beta W_0 + p S_0 - sum_s c[s] grad_s, for one weight and one row of coefficients."""
    state = at.beta * start - weighted_sum(at.c, writes[name], kinds[name])
    if momentum is not None:
        assert at.p is not None
        state = state + at.p * momentum
    return state


def states_per_token(
    start: Array,
    momentum: Array | None,
    writes: Writes,
    coefficients: Coefficients,
    name: str,
    kinds: dict[str, Kind],
) -> Array:
    """A_t for every token of the run: [C, in, out] or [C, out]."""
    read = Coefficients(coefficients.c, coefficients.beta, coefficients.p)
    return jax.vmap(lambda at: state_at(at, start, momentum, writes, name, kinds))(read)


def momentum_at(
    at: Coefficients, start: Array, writes: Writes, name: str, kinds: dict[str, Kind]
) -> Array:
    """M S_0 - sum_s n[s] grad_s, for one weight and one row of coefficients."""
    assert at.m is not None
    assert at.n is not None
    return at.m * start - weighted_sum(at.n, writes[name], kinds[name])
