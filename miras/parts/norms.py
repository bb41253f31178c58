"""Powers and norms whose gradients stay finite at zero, for biases and retention gates alike."""

import jax.numpy as jnp

from miras.array_typing import Array


def power(x: Array, exponent: float) -> Array:
    """x ** exponent for x >= 0; exact and cheap for whole exponents, gradient 0 at 0 otherwise."""
    if exponent == int(exponent):
        return x ** int(exponent)
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, 1.0) ** exponent, 0.0)


def norm(r: Array) -> Array:
    """||r||_2 over the last axis, kept: [C, D] to [C, 1]."""
    square = jnp.sum(r * r, axis=-1, keepdims=True)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def direction(r: Array) -> Array:
    """r / ||r||_2 over the last axis, and 0 at 0: [C, D] to [C, D]."""
    length = norm(r)
    return r / jnp.where(length > 0, length, 1.0)


def lq_norm(x: Array, q: float) -> Array:
    """||x||_q over all entries, a scalar; 1 where all are 0, so that it may divide."""
    total = jnp.sum(power(jnp.abs(x), q))
    positive = total > 0
    return jnp.where(positive, jnp.where(positive, total, 1.0) ** (1 / q), 1.0)
