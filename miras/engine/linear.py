"""Dual trajectories: states linear in the gradients, read in dual form and never formed."""

import dataclasses
import functools

import jax.numpy as jnp

from miras.array_typing import Array, Leaf, Weights
from miras.engine.decay import sums_before
from miras.engine.iterate import Iterate, Steps, last, weighted_sum
from miras.engine.readers import DualForm, DualWeight, FactoredGradient
from miras.memory import Reader
from miras.optim.coefficients import Coefficients
from miras.rule.rule import Rule


@dataclasses.dataclass
class DualTrajectory:
    """States in dual form: W_t = beta_t W_0 + p_t S_0 - sum_s c[t, s] X_s^T E_s, times decays."""

    rule: Rule
    start: Iterate
    steps: Steps
    fixed: Weights

    def after(self) -> Reader:
        """Reads the state after each token's own write."""
        duals = {name: self.dual(name) for name in self.start.A}
        return DualForm(duals, self.fixed, self._gates())

    def before(self) -> DualForm:
        """Reads the state at which each token's gradient is taken: W_{t-1}, or alpha_t W_{t-1}."""
        decay_first = self.rule.order == "decay_first"
        duals = {}
        for name in self.start.A:
            dual = self.dual(name)
            scalar = self.steps.decays[name].scalar if decay_first else None
            duals[name] = dual._replace(
                coefficients=coefficients_before(dual.coefficients, scalar),
                row=sums_before(dual.row, decay_first),
                column=sums_before(dual.column, decay_first),
            )
        return DualForm(duals, self.fixed, self._gates())

    def end(self) -> Iterate:
        """The iterate after the last token."""
        if self.rule.algorithm.averaged:
            S = {name: self._momentum(name) for name in self.start.A}
            A = {name: self._averaged(name, S[name]) for name in self.start.A}
            return Iterate(A, S, self.start.V)
        A = {name: self._end(name, leaf) for name, leaf in self.start.A.items()}
        S = self.start.S
        if S is not None:
            S = {name: self._momentum(name) for name in S}
        return Iterate(A, S, self.start.V)

    def _gates(self) -> dict[str, Array]:
        return self.rule.memory.own_gates(self.steps.gates)

    def dual(self, name: str) -> DualWeight:
        """How one weight changes over the tokens."""
        assert self.steps.coefficients is not None
        coefficients = self.steps.coefficients[name]
        momentum = None if self.start.S is None or coefficients.p is None else self.start.S[name]
        row, column = self.steps.decays[name].sums()
        return DualWeight(
            self.start.A[name], momentum, self.steps.writes[name], coefficients, row, column
        )

    def _end(self, name: str, start: Leaf) -> Leaf:
        dual = self.dual(name)
        c, beta = last(dual.coefficients.c), last(dual.coefficients.beta)
        state, kind = beta * start, self.steps.kinds[name]
        row, column = dual.row, dual.column
        if row is not None:
            state = state * jnp.exp(last(row.since_start))[:, None]
        if column is not None:
            state = state * jnp.exp(last(column.since_start))
        if dual.momentum is not None:
            assert dual.coefficients.p is not None
            state = state + last(dual.coefficients.p) * dual.momentum
        for write in dual.writes:
            X, E = write
            if row is not None:
                X = X * jnp.exp(row.rest())
            if column is not None:
                E = E * jnp.exp(column.rest())
            state = state + weighted_sum(-c, FactoredGradient(X, E), kind)
        return state

    def _averaged(self, name: str, S: Leaf) -> Leaf:
        """A_0 + r S; reuses S, the sum of steps."""
        assert self.steps.coefficients is not None
        row = self.steps.coefficients[name].row
        assert row is not None
        return self.start.A[name] + last(row) * S

    def _momentum(self, name: str) -> Leaf:
        """S after the last token; S_0 is 0 where the start has none."""
        assert self.steps.coefficients is not None
        coefficients = self.steps.coefficients[name]
        assert coefficients.m is not None
        assert coefficients.n is not None
        steps = (
            weighted_sum(-last(coefficients.n), write, self.steps.kinds[name])
            for write in self.steps.writes[name]
        )
        if self.start.S is None:
            return functools.reduce(jnp.add, steps)
        return functools.reduce(jnp.add, steps, last(coefficients.m) * self.start.S[name])


def coefficients_before(coefficients: Coefficients, log_decay: Array | None) -> Coefficients:
    """The coefficients of W_{t-1}, times alpha_t if given: c, beta and p of the token before."""
    factor = 1.0 if log_decay is None else jnp.exp(log_decay)
    column = factor if log_decay is None else jnp.exp(log_decay)[:, None]
    c = column * jnp.pad(coefficients.c[:-1], ((1, 0), (0, 0)))
    beta = factor * jnp.pad(coefficients.beta[:-1], (1, 0), constant_values=1.0)
    p = None if coefficients.p is None else factor * jnp.pad(coefficients.p[:-1], (1, 0))
    return Coefficients(c, beta, p)
