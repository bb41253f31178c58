"""Linear systems in matmuls, with no call of LAPACK.

LAPACK calls of jaxlib 0.10 can deadlock XLA's CPU thread pool when several run at once: each waits
on a thread of the pool for work that it queues on the same pool. This module can go once a newer
jaxlib does not deadlock.
"""

import jax
import jax.numpy as jnp

from miras.array_typing import Array


def solve_unit_lower(lower: Array, target: Array) -> Array:
    """X with (1 + lower) X = target; lower [n, n] strictly lower triangular, target [n, D]."""
    if lower.shape[0] == 1:
        return target
    return inverse_unit_lower(lower) @ target


@jax.custom_jvp
def inverse_unit_lower(lower: Array) -> Array:
    """(1 + lower)^-1 for a strictly lower triangular [n, n], from blocks of 1, 2, 4, ... rows.

    With X the inverse of the diagonal blocks of s rows, and N those of `lower` which stand beside
    two of them, the inverse of the blocks of 2 s rows is X - X N X.
    """
    size = lower.shape[0]
    row, column = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    X = jnp.eye(size, dtype=lower.dtype)
    s = 1
    while s < size:
        beside = (row // s == column // s + 1) & (row // (2 * s) == column // (2 * s))
        N = jnp.where(beside, lower, 0.0)
        X = X - (N if s == 1 else X @ N @ X)
        s *= 2
    return X


@jax.custom_jvp
def inverse_positive(matrix: Array) -> Array:
    """The inverse of a symmetric positive definite [n, n], by Gauss-Jordan sweeps.

    No pivot is looked for, as none is needed: each is the Schur complement's diagonal, positive.
    """

    def sweep(M: Array, at: Array):
        others = 1 - at
        row, column = at @ M, (M @ at) * others
        row = (row * others + at) / (row @ at)
        rest = M * others[:, None] * others[None, :]
        return rest + (at - column)[:, None] * row[None, :], None

    swept, _ = jax.lax.scan(sweep, matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    return swept


def _by_the_inverse(inverse):
    """Derive by dX = -X dM X for X = M^-1, rather than through how X was found."""

    def derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        X = inverse(*primals)
        return X, -(X @ tangents[0] @ X)

    inverse.defjvp(derivative)


_by_the_inverse(inverse_unit_lower)
_by_the_inverse(inverse_positive)


def solve_by_column(lower: Array, target: Array) -> Array:
    """X with (1 + lower[:, :, d]) X[:, d] = target[:, d]: as many systems as columns, row by row.

    Args:
        lower: [n, n, D], strictly lower triangular in the first two.
        target: [n, D].
    """

    def row(X: Array, given: tuple[Array, Array, Array]):
        weights, aim, at = given
        return X + at[:, None] * (aim - jnp.sum(weights * X, axis=0)), None

    rows = (lower, target, jnp.eye(target.shape[0], dtype=target.dtype))
    X, _ = jax.lax.scan(row, jnp.zeros_like(target), rows)
    return X
