"""Recursive least squares: states that are the minimiser over all tokens so far.

    y_t = phi(q_t) (H_t + ridge I)^{-1} G_t

G ("w1") and H are linear memories written along the same key, so both follow the chunk's own
coefficients; what is new is a solve for each query.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.gradients import Gradients
from miras.engine.linear import DualTrajectory
from miras.engine.readers import FactoredGradient, FixedWeightsReader, ReadKind
from miras.engine.systems import inverse_positive
from miras.engine.tokens import Tokens
from miras.memory import Reader
from miras.optim import LeastSquares
from miras.rule.rule import Rule


def solver_of(rule: Rule) -> LeastSquares:
    """The solver of a rule's algorithm."""
    solver = rule.algorithm.least_squares
    assert solver is not None
    return solver


def start(rule: Rule, fast: Weights) -> Weights:
    """The state of no tokens, per head: G = ridge W0 and H = 0."""
    W = fast["w1"]
    width = W.shape[-2]
    return {
        "w1": solver_of(rule).ridge * W,
        "H": jnp.zeros((*W.shape[:-2], width, width), W.dtype),
    }


def writes(rule: Rule, snapshot: Weights, tokens: Tokens, fixed: Weights) -> Gradients:
    """G takes k^T v and H takes k^T k; the loss is that of the solution before the chunk."""
    (term,), gates = tokens.terms, tokens.for_gradients
    reader = solution_at_rest(rule, snapshot, fixed, rule.memory.own_gates(gates))
    x = rule.memory.features(reader, term.k)
    pred = reader.linear("w1", x)
    found = {
        "w1": (FactoredGradient(x, -term.rate * term.v),),
        "H": (FactoredGradient(x, -term.rate * x),),
    }
    kinds: dict[str, ReadKind] = {"w1": "linear", "H": "linear"}
    return Gradients(found, kinds, rule.bias.loss(pred, term.v, rule.bias.own_gates(gates)))


@dataclasses.dataclass
class SolutionReader:
    """Reads (H + ridge I)^{-1} G of the G and H that another reader reads.

    Attributes:
        base: reads G as "w1" and H.
        solver: how systems are solved.
        formed: H of each token [C, D, D], for the exact solver; None where all read the same H.
    """

    base: Reader
    solver: LeastSquares
    formed: Callable[[], Array] | None = None

    def linear(self, name: str, x: Array) -> Array:
        """x_t @ (H_t + ridge I)^{-1} G_t."""
        return self.base.linear(name, self._solved(x))

    def transposed(self, name: str, x: Array) -> Array:
        """Raises: the solution is that of a linear memory."""
        raise NotImplementedError

    def scale(self, name: str, x: Array) -> Array:
        """Raises: the solution is that of a linear memory."""
        raise NotImplementedError

    def shift(self, name: str, x: Array) -> Array:
        """Raises: the solution is that of a linear memory."""
        raise NotImplementedError

    def fixed(self, name: str) -> Array:
        """A fixed weight."""
        return self.base.fixed(name)

    def gate(self, name: str) -> Array:
        """A gate of the memory."""
        return self.base.gate(name)

    def _solved(self, x: Array) -> Array:
        """Rows z with z_t (H_t + ridge I) = x_t, [C, D]."""
        ridge, H = self.solver.ridge, lambda z: self.base.linear("H", z)
        if self.solver.solver == "cg":
            return _conjugate_gradient(lambda z: H(z) + ridge * z, x, self.solver.iterations)
        eye = jnp.eye(x.shape[1], dtype=x.dtype)
        if self.formed is None:
            return x @ inverse_positive(H(eye) + ridge * eye)
        inverse = jax.vmap(inverse_positive)(self.formed() + ridge * eye)
        return jnp.einsum("cd,cde->ce", x, inverse)


def solution_at_rest(rule: Rule, A: Weights, fixed: Weights, gates: Mapping[str, Array]) -> Reader:
    """Reads the solution of one G and H for all tokens."""
    return SolutionReader(FixedWeightsReader(A, fixed, gates=gates), solver_of(rule))


class LeastSquaresTrajectory(DualTrajectory):
    """States that are solutions: G and H in dual form, and a system for each read."""

    def after(self) -> Reader:
        """Reads the solution after each token's own write."""
        return SolutionReader(super().after(), solver_of(self.rule), self._formed)

    def _formed(self) -> Array:
        """H_t for every token, [C, D, D]."""
        dual = self.dual("H")

        def of_token(c, beta):
            (write,) = dual.writes
            weighted = c[:, None] * write.E
            return beta * dual.start - write.X.T @ weighted

        return jax.vmap(of_token)(dual.coefficients.c, dual.coefficients.beta)


def _conjugate_gradient(product, x: Array, iterations: int) -> Array:
    """Conjugate gradient on every row at once, from 0; a row that has converged stays put.

    The derivative is that of the solution, by the same solver on the adjoint, since H is symmetric.
    """
    precision = jnp.finfo(x.dtype).eps ** 2

    def descend(product, x):
        goal = precision * jnp.sum(x * x, axis=-1, keepdims=True)

        def step(carry, _):
            z, r, p, rr = carry
            Hp = product(p)
            active = rr > goal
            curvature = jnp.where(active, jnp.sum(p * Hp, axis=-1, keepdims=True), 1.0)
            alpha = jnp.where(active, rr, 0.0) / curvature
            z, r = z + alpha * p, r - alpha * Hp
            new = jnp.sum(r * r, axis=-1, keepdims=True)
            p = r + jnp.where(active, new / jnp.where(active, rr, 1.0), 0.0) * p
            return (z, r, p, jnp.where(active, new, 0.0)), None

        start = (jnp.zeros_like(x), x, x, jnp.sum(x * x, axis=-1, keepdims=True))
        (z, _, _, _), _ = jax.lax.scan(step, start, None, length=iterations)
        return z

    return jax.lax.custom_linear_solve(product, x, descend, symmetric=True)
