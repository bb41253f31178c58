"""THE chunk step: the memory update of miras, written once.

A pure function of one head's memory and one run of tokens inside one chunk. Backends differ in how
they trace it, presets in the rule that they pass; nothing else updates a memory, but for the
per-token oracle in `reference`.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine import recursive_least_squares as least_squares
from miras.engine.averaging import AVERAGE
from miras.engine.buffers import ChunkBuffers
from miras.engine.decay import decay_of
from miras.engine.erasing import with_erasures
from miras.engine.exact import exact_gradients
from miras.engine.gradients import Gradients, associated, gradients
from miras.engine.iterate import Iterate, Steps, last, link
from miras.engine.linear import DualTrajectory
from miras.engine.readers import FixedWeightsReader, apply
from miras.engine.state import State
from miras.engine.tokens import Tokens, band, next_window, tokens_of, with_window
from miras.engine.trajectory import Trajectory, trajectory
from miras.memory import Reader
from miras.optim.coefficients import Coefficients, averaged
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


class Tile(NamedTuple):
    """A run of C tokens of one head that lie in one chunk.

    Attributes:
        q: [C, dk], or [C, N, dk] with N reads a token.
        k: [C, dk], or [C, R, dk] with R terms a token.
        v: [C, dv], or [C, R, dv].
        k_write: as k; None where keys are written along themselves.
        gates: by name, [C, ...], logs for decay and momentum.
        write: [C], 1 or 0: whether the token writes and decays.
        chunk_start: scalar bool: the run begins a chunk, so the snapshot is taken anew; None says
            that it always does.
        chunk_end: scalar bool: the per-chunk actions (link, transform, prox) follow the run's last
            token, which ends its chunk; under `lag` it is the chunk's first token.
    """

    q: Array
    k: Array
    v: Array
    k_write: Array | None
    gates: dict[str, Array]
    write: Array
    chunk_start: Array | None
    chunk_end: Array


Tree = TypeVar("Tree")


def select(condition: Array | None, new: Tree, old: Tree) -> Tree:
    """The new arrays where the scalar condition holds (None: always), the old elsewhere."""
    if condition is None:
        return new
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def chunk_step(
    rule: Rule,
    options: ScanOptions,
    fixed: Weights,
    memory: State,
    tile: Tile,
) -> tuple[State, Array, Array]:
    """Write a run of tokens into a memory and read it after each of them.

        X_s, D_s        factored gradients of loss(M(R, k_s), v_s)
        E_s             write_s eta_s D_s
        y_t             M(W_t, q_t), W_t = beta_t W_0 + p_t S_0 - sum_{s<=t} c[t,s] X_s^T E_s

    with further forms of W_t where it is not linear in the gradients (`trajectory`), and other
    weights than R at which gradients are taken (`options`).

    Args:
        rule: the four parts.
        options: `refine` and `exact`.
        fixed: weights that only the outer loop trains.
        memory: the memory before the run.
        tile: the tokens.

    Returns:
        The memory after the run, y [C, dv] or [C, N, dv], the inner loss of each token where its
        gradient was taken [C].
    """
    return advance(rule, fixed, learn(rule, options, fixed, memory, tile), tile)


class PendingUpdate(NamedTuple):
    """The update that a run of tokens makes, before it is written.

    Attributes:
        tokens: the run's.
        memory: before the run, at its chunk's start where it begins one.
        start: the initial iterate of the recursion.
        steps: what moves the memory.
        sweeps: each refinement sweep's iterate at the end.
        loss: inner loss of each token, after those of a window.
    """

    tokens: Tokens
    memory: State
    start: Iterate
    steps: Steps
    sweeps: tuple[Iterate, ...]
    loss: Array


@jax.named_scope("gradients")
def learn(
    rule: Rule, options: ScanOptions, fixed: Weights, memory: State, tile: Tile
) -> PendingUpdate:
    """The gradients of a run of tokens; arguments are those of `chunk_step`."""
    buffers = ChunkBuffers(memory.carried or {}, tile.write)
    written = tile.k, tile.v, tile.k_write, tile.gates, tile.write
    tokens = tokens_of(rule, fixed, *written, buffers)
    if memory.carried is not None:
        memory = memory.replace(carried={**memory.carried, **buffers.after})
    memory = _begin_chunk(rule, memory, tile.chunk_start)
    start = _initial_iterate(rule, memory, tile.chunk_start)
    steps = _steps(rule, memory, tokens)

    grads, steps, sweeps = _gradients_by_mode(rule, options, fixed, memory, tokens, steps)
    return PendingUpdate(tokens, memory, start, steps, sweeps, grads.loss)


@jax.named_scope("advance")
def advance(
    rule: Rule, fixed: Weights, pending: PendingUpdate, tile: Tile
) -> tuple[State, Array, Array]:
    """Write a pending update and read it; results are those of `chunk_step`."""
    tokens, memory, start, steps, sweeps, loss = pending
    path = trajectory(rule, start, steps, fixed)
    end = path.end()
    if rule.algorithm.averaged and tile.chunk_start is not None:  # a run may write no token
        end = end._replace(A=select(jnp.sum(tile.write) > 0, end.A, memory.A))

    y = _read(rule, fixed, memory, path, steps, tile.q)
    R, L = memory.R, memory.L
    if rule.reads_linearly:
        assert L is not None
        in_chunk = trajectory(rule, Iterate(L, memory.S, memory.V), steps, fixed).end()
        linked = link(rule, end.A)
        R, L = select(tile.chunk_end, linked, R), select(tile.chunk_end, linked, in_chunk.A)
        y = _last_read(rule, fixed, linked, steps, tile, y)
    if rule.algorithm.acts == "chunk":
        end = _act_at_chunk_end(rule, end, steps, tile.chunk_end)
    if rule.retention.proximal and rule.retention.linked == "chunk":
        gates = {name: last(gate) for name, gate in tokens.gates.items()}
        near = {n: rule.retention.prox(leaf, memory.R[n], gates) for n, leaf in end.A.items()}
        end = end._replace(A=select(tile.chunk_end, near, end.A))
        y = _last_read(rule, fixed, end.A, steps, tile, y)
    window = None
    if memory.window is not None:
        window = next_window(rule, tokens, memory.window)
    size = tile.write.shape[0]
    loss = tile.write * loss[-size:]
    after = memory.replace(A=end.A, S=end.S, V=end.V, R=R, L=L, window=window, sweeps=sweeps)
    return after, y, loss


def _begin_chunk(rule: Rule, memory: State, chunk_start: Array | None) -> State:
    """At a chunk's start: a new snapshot is taken and per-chunk buffers are reset."""
    linked = link(rule, memory.A)
    R = select(chunk_start, linked, memory.R)
    L = None if memory.L is None else select(chunk_start, linked, memory.L)
    S = memory.S
    if S is not None and rule.algorithm.restarts:
        S = select(chunk_start, {name: jnp.zeros_like(leaf) for name, leaf in S.items()}, S)
    begin = Iterate(memory.A, S, memory.V)
    sweeps = tuple(select(chunk_start, begin, sweep) for sweep in memory.sweeps)
    return memory.replace(S=S, R=R, L=L, sweeps=sweeps)


def _initial_iterate(rule: Rule, memory: State, chunk_start: Array | None) -> Iterate:
    """The initial iterate of the recursion: the memory, or the snapshot under averaging."""
    if not rule.algorithm.averaged:
        return Iterate(memory.A, memory.S, memory.V)
    return Iterate(memory.R, None if chunk_start is None else memory.S, memory.V)


def _steps(rule: Rule, memory: State, tokens: Tokens) -> Steps:
    """All that moves the memory but the gradients."""
    decays = {name: decay_of(rule.memory, name, tokens.log_decays) for name in memory.A}
    weights = band(rule, memory.window, tokens)
    coefficients = None
    if not rule.forms_weights:
        known: dict[int, Coefficients] = {}
        coefficients = {}
        for name, decay in decays.items():
            key = id(decay.scalar)
            if key not in known:
                own = rule.algorithm.coefficients(
                    decay.scalar, tokens.for_steps, tokens.write, weights
                )
                row = tokens.gates.get(AVERAGE)
                known[key] = own if row is None else averaged(own, row)
            coefficients[name] = known[key]
    return Steps(
        {}, {}, decays, coefficients, weights, tokens.for_steps, tokens.write, tokens.gates
    )


def _gradients_by_mode(
    rule: Rule, options: ScanOptions, fixed: Weights, memory: State, tokens: Tokens, steps: Steps
) -> tuple[Gradients, Steps, tuple[Iterate, ...]]:
    """The gradients, the steps with them, and each refinement sweep's iterate at the end."""
    if rule.algorithm.least_squares is not None:
        grads = least_squares.writes(rule, memory.R, tokens, fixed)
        return grads, _with_gradients(steps, grads), ()
    if options.exact:
        nothing = steps._replace(writes=dict.fromkeys(memory.A, ()))
        start = Iterate(memory.A, memory.S, memory.V)
        before = DualTrajectory(rule, start, nothing, fixed).before()
        grads = exact_gradients(rule, before.duals, tokens.terms, fixed, tokens.for_gradients)
        return grads, _with_gradients(steps, grads), ()
    decays = steps.decays if rule.order == "decay_first" else None
    tokens = tokens if memory.window is None else with_window(memory.window, tokens)
    own = rule.memory.own_gates(tokens.for_gradients)
    grads = _at(rule, FixedWeightsReader(memory.R, fixed, decays, own), tokens)
    sweeps = []
    for sweep in memory.sweeps:
        path = trajectory(rule, sweep, _written(rule, sweep, steps, grads, fixed), fixed)
        sweeps.append(path.end())
        grads = _at(rule, path.before(), tokens)
    start = Iterate(memory.A, memory.S, memory.V)
    return grads, _written(rule, start, steps, grads, fixed), tuple(sweeps)


def _written(rule: Rule, start: Iterate, steps: Steps, grads: Gradients, fixed: Weights) -> Steps:
    """The steps from an iterate: the gradients, and what they erase of it."""
    steps = _with_gradients(steps, grads)
    return with_erasures(rule, start, steps, fixed) if rule.algorithm.erases else steps


def _with_gradients(steps: Steps, grads: Gradients) -> Steps:
    return steps._replace(writes=grads.writes, kinds=grads.kinds)


def _at(rule: Rule, reader: Reader, tokens: Tokens) -> Gradients:
    """The gradients of the tokens, after those of a window, at the weights that a reader gives."""
    grads = gradients(rule, reader, tokens.terms, tokens.for_gradients)
    if not rule.memory.associates:
        return grads
    (term,) = tokens.terms
    return Gradients(*associated(rule, term, tokens.for_gradients, tokens.log_decays), grads.loss)


@jax.named_scope("read")
def _read(
    rule: Rule, fixed: Weights, memory: State, path: Trajectory, steps: Steps, q: Array
) -> Array:
    """y [C, dv], or [C, N, dv]."""
    if rule.read == "snapshot":
        return apply(rule.memory, _fixed_weights(rule, memory.R, fixed, steps), q)
    if rule.reads_linearly:
        assert memory.L is not None
        path = trajectory(rule, Iterate(memory.L, memory.S, memory.V), steps, fixed)
    return apply(rule.memory, path.after(), q)


def _fixed_weights(rule: Rule, W: Weights, fixed: Weights, steps: Steps) -> FixedWeightsReader:
    """Reads the same weights for all queries."""
    return FixedWeightsReader(W, fixed, gates=rule.memory.own_gates(steps.gates))


def _last_read(rule: Rule, fixed: Weights, W: Weights, steps: Steps, tile: Tile, y: Array) -> Array:
    """y, where the run's last token reads the memory after the per-chunk action, if any."""
    if rule.read == "snapshot":
        return y
    true_read = apply(rule.memory, _fixed_weights(rule, W, fixed, steps), tile.q)
    is_last = (jnp.arange(y.shape[0]) == y.shape[0] - 1).reshape(-1, *[1] * (y.ndim - 1))
    return jnp.where(is_last & tile.chunk_end, true_read, y)


def _act_at_chunk_end(rule: Rule, end: Iterate, steps: Steps, chunk_end: Array) -> Iterate:
    """The iterate after the step of an algorithm that acts at the end of each chunk."""
    gates = {name: last(gate) for name, gate in steps.for_steps.items()}
    A, V = {}, {}
    for name, leaf in end.A.items():
        assert end.S is not None
        U, V[name] = rule.algorithm.transform(
            end.S[name], None if end.V is None else end.V[name], gates
        )
        A[name] = leaf + U
    return Iterate(
        select(chunk_end, A, end.A), end.S, None if end.V is None else select(chunk_end, V, end.V)
    )
