"""Formed trajectories: weights formed explicitly at every token, where no dual form is known."""

import functools

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Leaf, Weights
from miras.engine.decay import Decay
from miras.engine.iterate import Iterate, Steps, link, weighted_sum
from miras.engine.readers import FactoredGradient, PerToken
from miras.memory import Reader
from miras.rule.rule import Rule


class FormedTrajectory:
    """Weights formed explicitly at every token, by the algorithm's recursion at given gradients.

    The only form for links and proximal maps that fire at every token, for steps that are not
    linear in the gradients, and for decays per channel under momentum.
    """

    def __init__(self, rule: Rule, start: Iterate, steps: Steps, fixed: Weights):
        self.rule, self.start, self.steps, self.fixed = rule, start, steps, fixed
        tokens = jnp.arange(steps.write.shape[0])
        # Each token is computed again in the backward pass: only the states between are kept.
        token = jax.checkpoint(self._token)
        self._end, self.states = jax.lax.scan(token, start, tokens)

    def after(self) -> Reader:
        """Reads the state after each token's own write."""
        return PerToken(self._primal(self.states), self.fixed, self._gates())

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
        return PerToken(self._primal(past), self.fixed, self._gates())

    def end(self) -> Iterate:
        """The iterate after the last token."""
        return self._end

    def _gates(self) -> dict[str, Array]:
        return self.rule.memory.own_gates(self.steps.gates)

    def _primal(self, states: Weights) -> Weights:
        if self.rule.reads_linearly:  # these states are of the linear recursion between links
            return states
        return jax.vmap(lambda A: link(self.rule, A))(states)

    def _token(self, memory: Iterate, t: Array) -> tuple[Iterate, Weights]:
        A, S, V = memory
        steps, algorithm = self.steps, self.rule.algorithm
        own = {name: gate[t] for name, gate in steps.for_steps.items()}
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
                own,
            )
            new = factor[0] * leaf + U
            if self.rule.retention.proximal and self.rule.retention.linked == "token":
                new = self.rule.retention.prox(new, leaf, gates)
            new_A[name], new_S[name], new_V[name] = new, s, v
        new = Iterate(new_A, None if S is None else new_S, None if V is None else new_V)
        memory = jax.tree.map(lambda a, b: jnp.where(steps.write[t] > 0, a, b), new, memory)
        return memory, memory.A

    def _gradient(self, name: str, t: Array) -> Leaf:
        kind, band = self.steps.kinds[name], self.steps.band
        writes = self.steps.writes[name]
        if band is not None:
            parts = [weighted_sum(band[t], write, kind) for write in writes]
        else:
            one = jnp.ones(1, writes[0].E.dtype)
            own = [FactoredGradient(write.X[t][None], write.E[t][None]) for write in writes]
            parts = [weighted_sum(one, write, kind) for write in own]
        return functools.reduce(jnp.add, parts)
