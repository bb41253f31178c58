"""Least squares: Newton's algorithm, whose memory is read through the inverse of its Gram matrix.

    y_t = phi(q_t) (H_t + ridge I)^{-1} G_t

G ("w1") and H are linear memories written along the same key, so both follow the chunk's own
coefficients; what is new is a solve for each query.
"""

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Leaf, Weights
from miras.engine.gradients import Gradients
from miras.engine.readers import Plain, Write
from miras.engine.systems import inverse_positive
from miras.engine.tokens import Tokens
from miras.engine.trajectory import Linear
from miras.optim import Newton
from miras.rule.rule import Rule


def start(rule: Rule, fast: Weights) -> Weights:
    """The state of no tokens, per head: G = ridge W0 and H = 0."""
    assert isinstance(rule.algorithm, Newton)
    W = fast["w1"]
    width = W.shape[-2]
    return {
        "w1": rule.algorithm.ridge * W,
        "H": jnp.zeros((*W.shape[:-2], width, width), W.dtype),
    }


def writes(rule: Rule, snapshot: Weights, tokens: Tokens, fixed: Weights) -> Gradients:
    """G takes k^T v and H takes k^T k; the loss is that of the solution before the chunk."""
    (term,), at_start = tokens.terms, Plain(snapshot, fixed)
    x = rule.memory.features(at_start, term.k)
    pred = at_start.linear("w1", solve(rule, lambda z: z @ snapshot["H"], None, x))
    found = {"w1": (Write(x, -term.rate * term.v),), "H": (Write(x, -term.rate * x),)}
    kinds = {"w1": "linear", "H": "linear"}
    return Gradients(
        found, kinds, rule.bias.loss(pred, term.v, rule.bias.own_gates(tokens.for_gradients))
    )  # pyright: ignore


def read(rule: Rule, path: Linear, q: Array) -> Array:
    """y_t for queries [C, dk]."""
    reader = path.after()
    x = rule.memory.features(reader, q)
    return reader.linear("w1", solve(rule, lambda z: reader.linear("H", z), path, x))


def solve(rule: Rule, product, path: Linear | None, x: Array) -> Array:
    """Rows z with z_t (H_t + ridge I) = x_t.

    Args:
        rule: for the ridge and the solver.
        product: rows z to z_t H_t.
        path: of the states where H_t differ; None where H is the same for all.
        x: [C, D].
    """
    newton = rule.algorithm
    assert isinstance(newton, Newton)
    if newton.solver == "cg":
        return _conjugate_gradient(lambda z: product(z) + newton.ridge * z, x, newton.iterations)
    eye = jnp.eye(x.shape[1], dtype=x.dtype)
    H: Leaf = product(eye) if path is None else _formed(path)
    full = H + newton.ridge * eye
    if path is None:
        return x @ inverse_positive(full)
    return jnp.einsum("cd,cde->ce", x, jax.vmap(inverse_positive)(full))


def _formed(path: Linear) -> Array:
    """H_t for every token, [C, D, D]."""
    trail = path._trail("H")

    def at(c, beta):
        (write,) = trail.writes
        weighted = c[:, None] * write.E
        return beta * trail.start - write.X.T @ weighted

    return jax.vmap(at)(trail.at.c, trail.at.beta)


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
