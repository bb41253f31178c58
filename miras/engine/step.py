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
from miras.engine.decay import decay_of
from miras.engine.exact import exact_gradients
from miras.engine.gradients import Gradients, associated, gradients
from miras.engine.readers import Plain
from miras.engine.tokens import Tokens, Window, band, next_window, tokens_of, with_window
from miras.engine.trajectory import Linear, Memory, Steps, following, last, link, trajectory
from miras.memory import Reader
from miras.optim import Newton
from miras.optim.coefficients import Coefficients, averaged
from miras.rule.rule import Rule


class Semantics(NamedTuple):
    """At which weights gradients are taken: see `miras.scan`."""

    refine: int = 0
    exact: bool = False


class Fast(NamedTuple):
    """One head's memory between tiles; see `State` for A, S, V, R, L, window and sweeps."""

    A: Weights
    S: Weights | None
    V: Weights | None
    R: Weights
    L: Weights | None
    window: Window | None
    sweeps: tuple[Memory, ...]


class Tile(NamedTuple):
    """A run of C tokens of one head that lie in one chunk.

    Attributes:
        q: [C, dk].
        k: [C, dk], or [C, R, dk] with R terms a token.
        v: [C, dv], or [C, R, dv].
        k_write: as k; None where keys are written along themselves.
        gates: by name, [C, ...], logs for decay and momentum.
        write: [C], 1 or 0: whether the token writes and decays.
        fresh: scalar bool: the run begins a chunk, so the snapshot is taken anew; None says that
            it always does.
        fire: scalar bool: what happens once a chunk happens after the run's last token.
    """

    q: Array
    k: Array
    v: Array
    k_write: Array | None
    gates: dict[str, Array]
    write: Array
    fresh: Array | None
    fire: Array


Tree = TypeVar("Tree")


def select(condition: Array | None, new: Tree, old: Tree) -> Tree:
    """The new arrays where the scalar condition holds (None: always), the old elsewhere."""
    if condition is None:
        return new
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def chunk_step(
    rule: Rule, how: Semantics, fixed: Weights, fast: Fast, tile: Tile, front: Steps | None = None
) -> tuple[Fast, Array, Array, Steps]:
    """Write a run of tokens into a memory and read it after each of them.

        X_s, D_s        factored gradients of loss(M(R, k_s), v_s)
        E_s             write_s eta_s D_s
        y_t             M(W_t, q_t), W_t = beta_t W_0 + p_t S_0 - sum_{s<=t} c[t,s] X_s^T E_s

    with further forms of W_t where it is not linear in the gradients (`trajectory`), and other
    weights than R at which gradients are taken (`how`).

    Args:
        rule: the four parts.
        how: `refine` and `exact`.
        fixed: weights that only the outer loop trains.
        fast: the memory before the run; with `front`, S as it was before the run in front.
        tile: the tokens.
        front: the steps of the run in front, where that has formed no S; see `in_pairs`.

    Returns:
        The memory after the run, y [C, dv], the inner loss of each token where its gradient was
        taken [C], and the run's steps, those of `front` among them.
    """
    tokens = tokens_of(rule, fixed, tile.k, tile.v, tile.k_write, tile.gates, tile.write)
    fast = _begin(rule, fast, tile.fresh)
    start = _start(rule, fast, tile.fresh)
    steps = _steps(rule, fast, tokens)

    found, moved, sweeps = _learn(rule, how, fixed, fast, tokens, steps)
    moved = moved if front is None else following(front, moved)
    path = trajectory(rule, start, moved, fixed)
    end = path.end()
    if rule.algorithm.averaged and tile.fresh is not None:  # else nothing is written before it
        end = end._replace(A=select(jnp.sum(tile.write) > 0, end.A, fast.A))

    y = _read(rule, fixed, fast, path, moved, tile.q)
    R, L = fast.R, fast.L
    if rule.reads_linearly:
        assert L is not None
        in_chunk = trajectory(rule, Memory(L, fast.S, fast.V), moved, fixed).end()
        linked = link(rule, end.A)
        R, L = select(tile.fire, linked, R), select(tile.fire, linked, in_chunk.A)
        y = _last_read(rule, fixed, linked, tile, y)
    if rule.algorithm.acts == "chunk":
        end = _act(rule, end, moved, tile.fire)
    if rule.retention.proximal and rule.retention.linked == "chunk":
        gates = {name: last(gate) for name, gate in tokens.gates.items()}
        near = {n: rule.retention.prox(leaf, fast.R[n], gates) for n, leaf in end.A.items()}
        end = end._replace(A=select(tile.fire, near, end.A))
        y = _last_read(rule, fixed, end.A, tile, y)
    window = None
    if fast.window is not None:
        window = next_window(rule, tokens, fast.window)
    size = tile.write.shape[0]
    loss = tile.write * found.loss[-size:]
    return Fast(end.A, end.S, end.V, R, L, window, sweeps), y, loss, moved


def in_pairs(rule: Rule, how: Semantics) -> bool:
    """Whether a chunk can leave S to the next one, which then forms it for both: see `following`.

    That takes momentum whose states are linear in the gradients, and nothing but W and S to carry.
    """
    alone = rule.algorithm.acts != "chunk" and rule.algorithm.window == 1
    plain = not (rule.forms_weights or rule.reads_linearly or rule.retention.proximal)
    return alone and plain and _has_momentum(rule) and how == Semantics()


def _begin(rule: Rule, fast: Fast, fresh: Array | None) -> Fast:
    """At a chunk's start: a new snapshot, and all that counts within a chunk set to its start."""
    linked = link(rule, fast.A)
    R = select(fresh, linked, fast.R)
    L = None if fast.L is None else select(fresh, linked, fast.L)
    S = fast.S
    if S is not None and rule.algorithm.restarts:
        S = select(fresh, {name: jnp.zeros_like(leaf) for name, leaf in S.items()}, S)
    memory = Memory(fast.A, S, fast.V)
    sweeps = tuple(select(fresh, memory, sweep) for sweep in fast.sweeps)
    return fast._replace(S=S, R=R, L=L, sweeps=sweeps)


def _start(rule: Rule, fast: Fast, fresh: Array | None) -> Memory:
    """From where the run's states are counted: the memory, or the snapshot where they average."""
    if not rule.algorithm.averaged:
        return Memory(fast.A, fast.S, fast.V)
    return Memory(fast.R, None if fresh is None else fast.S, fast.V)


def _has_momentum(rule: Rule) -> bool:
    return any(gate.name == "log_momentum" for gate in rule.algorithm.gates())


def _steps(rule: Rule, fast: Fast, tokens: Tokens) -> Steps:
    """All that moves the memory but the gradients."""
    decays = {name: decay_of(rule.memory, name, tokens.log_decays) for name in fast.A}
    weights = band(rule, fast.window, tokens)
    coefficients = None
    if not rule.forms_weights:
        known: dict[int, Coefficients] = {}
        coefficients = {}
        for name, decay in decays.items():
            key = id(decay.scalar)
            if key not in known:
                found = rule.algorithm.coefficients(
                    decay.scalar, tokens.log_momentum, tokens.rate, tokens.write, weights
                )
                row = tokens.gates.get(AVERAGE)
                known[key] = found if row is None else averaged(found, row)
            coefficients[name] = known[key]
    mu = None if tokens.log_momentum is None else jnp.exp(tokens.log_momentum)
    return Steps({}, {}, decays, coefficients, weights, mu, tokens.rate, tokens.write, tokens.gates)


def _learn(
    rule: Rule, how: Semantics, fixed: Weights, fast: Fast, tokens: Tokens, steps: Steps
) -> tuple[Gradients, Steps, tuple[Memory, ...]]:
    """The gradients that move the memory, the steps with them, and the sweeps' new memories."""
    if isinstance(rule.algorithm, Newton):
        found = least_squares.writes(rule, fast.R, tokens, fixed)
        return found, _with(steps, found), ()
    if how.exact:
        ((name, _),) = fast.A.items()
        nothing = steps._replace(writes={name: ()}, kinds={name: "linear"})
        before = Linear(rule, Memory(fast.A, fast.S, fast.V), nothing, fixed).before()
        found = exact_gradients(  # pyright: ignore
            rule, name, before.trails[name], tokens.terms, fixed, tokens.for_gradients
        )
        return found, _with(steps, found), ()
    decays = steps.decays if rule.order == "decay_first" else None
    tokens = tokens if fast.window is None else with_window(fast.window, tokens)
    found = _at(rule, Plain(fast.R, fixed, decays), tokens)
    moved, sweeps = _with(steps, found), []
    for sweep in fast.sweeps:
        path = trajectory(rule, sweep, moved, fixed)
        sweeps.append(path.end())
        found = _at(rule, path.before(), tokens)
        moved = _with(steps, found)
    return found, moved, tuple(sweeps)


def _with(steps: Steps, found: Gradients) -> Steps:
    return steps._replace(writes=found.writes, kinds=found.kinds)


def _at(rule: Rule, reader: Reader, tokens: Tokens) -> Gradients:
    """The gradients of the tokens, after those of a window, at the weights that a reader gives."""
    found = gradients(rule, reader, tokens.terms, tokens.for_gradients)
    if not rule.memory.associates:
        return found
    (term,) = tokens.terms
    return Gradients(*associated(rule, term, tokens.for_gradients, tokens.log_decays), found.loss)


def _read(rule: Rule, fixed: Weights, fast: Fast, path, steps: Steps, q: Array) -> Array:
    """Y [C, dv]."""
    if rule.read == "snapshot":
        return rule.memory.apply(Plain(fast.R, fixed), q)
    if isinstance(rule.algorithm, Newton):
        return least_squares.read(rule, path, q)
    if rule.reads_linearly:
        assert fast.L is not None
        path = trajectory(rule, Memory(fast.L, fast.S, fast.V), steps, fixed)
    return rule.memory.apply(path.after(), q)


def _last_read(rule: Rule, fixed: Weights, W: Weights, tile: Tile, y: Array) -> Array:
    """The last token of a chunk reads what the chunk's end has made of the memory."""
    if rule.read == "snapshot":
        return y
    true_read = rule.memory.apply(Plain(W, fixed), tile.q)
    is_last = (jnp.arange(y.shape[0]) == y.shape[0] - 1)[:, None]
    return jnp.where(is_last & tile.fire, true_read, y)


def _act(rule: Rule, end: Memory, steps: Steps, fire: Array) -> Memory:
    """What an algorithm that acts per chunk adds at its end."""
    rate = 1.0 if steps.rate is None else last(steps.rate)
    A, V = {}, {}
    for name, leaf in end.A.items():
        assert end.S is not None
        U, V[name] = rule.algorithm.transform(
            end.S[name], None if end.V is None else end.V[name], rate
        )
        A[name] = leaf + U
    return Memory(select(fire, A, end.A), end.S, None if end.V is None else select(fire, V, end.V))
