"""Trajectories: the states that a run's gradients lead through, one after each token.

Where states are linear in the gradients they are never formed: a `Linear` trajectory reads them in
dual form. Otherwise a `Formed` one walks through them token by token, each a full weight.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Leaf, Weights
from miras.engine.decay import Decay, before
from miras.engine.readers import DualForm, Kind, PerToken, Trail, Write, Writes
from miras.memory import Reader
from miras.optim.coefficients import Coefficients
from miras.rule.rule import Rule


class Memory(NamedTuple):
    """What a recursion carries: the state A and the algorithm's buffers S and V, if it keeps them.

    A is dual under a link, else the weight itself.
    """

    A: Weights
    S: Weights | None
    V: Weights | None


class Steps(NamedTuple):
    """What moves a memory through C tokens.

    Attributes:
        writes: factored gradients over K rows: the C tokens, behind those of a window if any.
        kinds: how each weight is read.
        decays: by weight.
        coefficients: by weight; None where states are formed.
        band: [C, K], the weight of each gradient in each token's step; None for its own alone.
        momentum: mu_t [C]; None without.
        rate: eta_t [C] where it scales the update; None elsewhere.
        write: [C], 1 or 0.
        gates: the token's effective gates, [C, ...], for proximal maps.
    """

    writes: Writes
    kinds: dict[str, Kind]
    decays: dict[str, Decay]
    coefficients: dict[str, Coefficients] | None
    band: Array | None
    momentum: Array | None
    rate: Array | None
    write: Array
    gates: dict[str, Array]


def following(first: Steps, second: Steps) -> Steps:
    """A run's steps from S as it was before the run in front of it, which S_0 is not formed after.

    The second run begins with S_0 = m S - sum_s n[s] grad_s. Put into its recursion, this makes the
    first run's gradients writes of the second, as a window's are:

        A_t = beta_t A_0 + p_t m S - sum_s p_t n[s] grad_s - sum_s c[t, s] grad_s, and S_t alike.
    """
    assert first.coefficients is not None
    assert second.coefficients is not None
    found: dict[int, Coefficients] = {}
    for name, at in second.coefficients.items():
        if id(at) in found:
            continue
        before = first.coefficients[name]
        assert before.m is not None
        assert before.n is not None
        assert at.p is not None
        assert at.m is not None
        assert at.n is not None
        m, n = last(before.m), last(before.n)[None, :]
        c, n = (
            jnp.concatenate([scale[:, None] * n, own], axis=1)
            for scale, own in ((at.p, at.c), (at.m, at.n))
        )
        found[id(at)] = Coefficients(c, at.beta, m * at.p, n, m * at.m)
    coefficients = {name: found[id(at)] for name, at in second.coefficients.items()}
    writes = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first.writes, second.writes)
    return second._replace(writes=writes, coefficients=coefficients)


def weighted_sum(weights: Array, write: Write, kind: Kind) -> Leaf:
    """sum_s weights[s] grad_s, with weights [K]: one weight's shape."""
    X, E = write
    if kind == "linear" and X.shape[1] < E.shape[1]:
        X = weights[:, None] * X
    else:
        E = weights[:, None] * E
    if kind == "linear":
        return jax.lax.dot_general(X, E, (((0,), (0,)), ((), ())))
    return jnp.sum(E * X if kind == "scale" else E, axis=0)


def link(rule: Rule, A: Weights) -> Weights:
    """The primal weights of a state."""
    if rule.retention.proximal:
        return A
    return {name: rule.retention.link(leaf) for name, leaf in A.items()}


def last(x: Array) -> Array:
    """The last row, as a masked sum, since Triton has no static slice."""
    size = x.shape[0]
    return (jnp.arange(size) == size - 1).astype(x.dtype) @ x


@dataclasses.dataclass
class Linear:
    """States in dual form: W_t = beta_t W_0 + p_t S_0 - sum_s c[t, s] X_s^T E_s, times decays."""

    rule: Rule
    start: Memory
    steps: Steps
    fixed: Weights

    def after(self) -> Reader:
        """Reads the state after each token's own write."""
        return DualForm({name: self._trail(name) for name in self.start.A}, self.fixed)

    def before(self) -> Reader:
        """Reads the state at which each token's gradient is taken: W_{t-1}, or alpha_t W_{t-1}."""
        decay_first = self.rule.order == "decay_first"
        trails = {}
        for name in self.start.A:
            trail = self._trail(name)
            scalar = self.steps.decays[name].scalar if decay_first else None
            trails[name] = trail._replace(
                at=shifted(trail.at, scalar),
                row=before(trail.row, decay_first),
                column=before(trail.column, decay_first),
            )
        return DualForm(trails, self.fixed)

    def end(self) -> Memory:
        """The memory after the last token."""
        if self.rule.algorithm.averaged:
            S = {name: self._momentum(name) for name in self.start.A}
            A = {name: self._averaged(name, S[name]) for name in self.start.A}
            return Memory(A, S, self.start.V)
        A = {name: self._end(name, leaf) for name, leaf in self.start.A.items()}
        S = self.start.S
        if S is not None:
            S = {name: self._momentum(name) for name in S}
        return Memory(A, S, self.start.V)

    def _trail(self, name: str) -> Trail:
        assert self.steps.coefficients is not None
        at = self.steps.coefficients[name]
        momentum = None if self.start.S is None or at.p is None else self.start.S[name]
        row, column = self.steps.decays[name].sums()
        return Trail(self.start.A[name], momentum, self.steps.writes[name], at, row, column)

    def _end(self, name: str, start: Leaf) -> Leaf:
        trail = self._trail(name)
        c, beta = last(trail.at.c), last(trail.at.beta)
        state, kind = beta * start, self.steps.kinds[name]
        row, column = trail.row, trail.column
        if row is not None:
            state = state * jnp.exp(last(row.at))[:, None]
        if column is not None:
            state = state * jnp.exp(last(column.at))
        if trail.momentum is not None:
            assert trail.at.p is not None
            state = state + last(trail.at.p) * trail.momentum
        for write in trail.writes:
            X, E = write
            if row is not None:
                X = X * jnp.exp(row.rest())
            if column is not None:
                E = E * jnp.exp(column.rest())
            state = state + weighted_sum(-c, Write(X, E), kind)
        return state

    def _averaged(self, name: str, S: Leaf) -> Leaf:
        """A_0 + r S, by the sum that is there already."""
        assert self.steps.coefficients is not None
        row = self.steps.coefficients[name].row
        assert row is not None
        return self.start.A[name] + last(row) * S

    def _momentum(self, name: str) -> Leaf:
        """S after the last token; S_0 is 0 where the start has none."""
        assert self.steps.coefficients is not None
        at = self.steps.coefficients[name]
        assert at.m is not None
        assert at.n is not None
        steps = (
            weighted_sum(-last(at.n), write, self.steps.kinds[name])
            for write in self.steps.writes[name]
        )
        if self.start.S is None:
            return functools.reduce(jnp.add, steps)
        return functools.reduce(jnp.add, steps, last(at.m) * self.start.S[name])


def shifted(at: Coefficients, log_decay: Array | None) -> Coefficients:
    """The coefficients of W_{t-1}, times alpha_t if given: c, beta and p of the token before."""
    factor = 1.0 if log_decay is None else jnp.exp(log_decay)
    column = factor if log_decay is None else jnp.exp(log_decay)[:, None]
    c = column * jnp.pad(at.c[:-1], ((1, 0), (0, 0)))
    beta = factor * jnp.pad(at.beta[:-1], (1, 0), constant_values=1.0)
    p = None if at.p is None else factor * jnp.pad(at.p[:-1], (1, 0))
    return Coefficients(c, beta, p)


class Formed:
    """States formed one by one: the algorithm's own recursion on full weights, at given gradients.

    The only form for links and proximal maps that fire at every token, for steps that are not
    linear in the gradients, and for decays per channel under momentum.
    """

    def __init__(self, rule: Rule, start: Memory, steps: Steps, fixed: Weights):
        self.rule, self.start, self.steps, self.fixed = rule, start, steps, fixed
        tokens = jnp.arange(steps.write.shape[0])
        # Each token is computed again in the backward pass: only the states between are kept.
        token = jax.checkpoint(self._token)
        self._end, self.states = jax.lax.scan(token, start, tokens)

    def after(self) -> Reader:
        """Reads the state after each token's own write."""
        return PerToken(self._primal(self.states), self.fixed)

    def before(self) -> Reader:
        """Reads the state at which each token's gradient is taken: W_{t-1}, or alpha_t W_{t-1}."""
        past = {
            name: jnp.concatenate([self.start.A[name][None], leaf[:-1]])
            for name, leaf in self.states.items()
        }
        if self.rule.order == "decay_first":
            past = {
                name: self.steps.decays[name].factor(leaf.ndim - 1) * leaf
                for name, leaf in past.items()
            }
        return PerToken(self._primal(past), self.fixed)

    def end(self) -> Memory:
        """The memory after the last token."""
        return self._end

    def _primal(self, states: Weights) -> Weights:
        if self.rule.reads_linearly:  # these states are of the linear recursion between links
            return states
        return jax.vmap(lambda A: link(self.rule, A))(states)

    def _token(self, memory: Memory, t: Array) -> tuple[Memory, Weights]:
        A, S, V = memory
        steps, algorithm = self.steps, self.rule.algorithm
        at = lambda x: None if x is None else x[t]  # noqa: E731
        rate = 1.0 if steps.rate is None else steps.rate[t]
        gates = {name: gate[t] for name, gate in steps.gates.items()}
        new_A, new_S, new_V = {}, {}, {}
        for name, leaf in A.items():
            decay = steps.decays[name]
            token = Decay(*(None if x is None else x[t][None] for x in decay))
            factor = token.factor(leaf.ndim)
            s, v, U = algorithm.step(
                None if S is None else S[name],
                None if V is None else V[name],
                self._gradient(name, t),
                at(steps.momentum),
                rate,
            )
            new = factor[0] * leaf + U
            if self.rule.retention.proximal and self.rule.retention.linked == "token":
                new = self.rule.retention.prox(new, leaf, gates)
            new_A[name], new_S[name], new_V[name] = new, s, v
        new = Memory(new_A, None if S is None else new_S, None if V is None else new_V)
        memory = jax.tree.map(lambda a, b: jnp.where(steps.write[t] > 0, a, b), new, memory)
        return memory, memory.A

    def _gradient(self, name: str, t: Array) -> Leaf:
        kind, band = self.steps.kinds[name], self.steps.band
        writes = self.steps.writes[name]
        if band is not None:
            parts = [weighted_sum(band[t], write, kind) for write in writes]
        else:
            one = jnp.ones(1, writes[0].E.dtype)
            own = [Write(write.X[t][None], write.E[t][None]) for write in writes]
            parts = [weighted_sum(one, write, kind) for write in own]
        return functools.reduce(jnp.add, parts)


def trajectory(rule: Rule, start: Memory, steps: Steps, fixed: Weights) -> Linear | Formed:
    """The trajectory in the form that the rule allows."""
    return (Formed if rule.forms_weights else Linear)(rule, start, steps, fixed)
