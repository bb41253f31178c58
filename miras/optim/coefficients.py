"""Coefficients: a linear memory algorithm as weights on past gradients.

Over the tokens s <= t of a chunk (or of a part of one), with write_s = 0 for masked tokens,

    S_t = mu_t S_{t-1} - E_t                     E_t = eta_t g_t
    A_t = alpha_t A_{t-1} + write_t S_t

unrolls to A_t = beta_t A_0 + p_t S_0 - sum_s c[t, s] E_s and
S_t = m_t S_0 - sum_s n[t, s] E_s. Algorithms provide c, beta, p, n and m.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.optim.sums_between import sums_between

MIN_LOG = -100.0  # 4e-44: a smaller gate forgets no more, but an infinite one gives 0 * inf


class Coefficients(NamedTuple):
    """The weights with which a chunk's C gradients and its initial state enter each token's state.

    Attributes:
        c: [C, K], gradient s in A_t; K = C and lower triangular, but for a window of tokens that
            reaches back over the first.
        beta: [C], A_0 in A_t.
        p: [C], S_0 in A_t; None without momentum.
        n: [C, K], gradient s in S_t; None without momentum.
        m: [C], S_0 in S_t; None without momentum.
        row: [C], r_t where A_t = beta_t A_0 + r_t S_t; None elsewhere.
    """

    c: Array
    beta: Array
    p: Array | None = None
    n: Array | None = None
    m: Array | None = None
    row: Array | None = None


def averaged(steps: Coefficients, row: Array) -> Coefficients:
    """From A_t = A_0 + the steps' sum to A_t = A_0 + r_t S_t, S_t = S_0 + that sum.

    Args:
        steps: c and beta of the steps; nothing decays, so beta is 1.
        row: r_t [C].
    """
    c, one = steps.c, steps.beta
    return Coefficients(row[:, None] * c, one, p=row, n=c, m=one, row=row)


def products(log_gate: Array | None, size: int, dtype) -> tuple[Array, Array]:
    """All cumulative products of a gate given by its log.

    Args:
        log_gate: [C], <= 0; None for a gate that is 1 throughout.
        size: C.
        dtype: of the result.

    Returns:
        L[t, s] = prod_{s < i <= t} gate_i, lower triangular with unit diagonal, and the products
        from the start, prod_{i <= t} gate_i, [C]. Each exponent is summed on its own, never as a
        difference of two long sums, so nothing overflows or cancels.
    """
    lower = _lower(size).astype(dtype)
    if log_gate is None:
        return lower, jnp.ones(size, dtype)
    log_gate = jnp.maximum(log_gate, MIN_LOG)
    return lower * jnp.exp(sums_between(log_gate)), jnp.exp(_summed(lower, log_gate))


def _lower(size: int) -> Array:
    return jnp.arange(size)[:, None] >= jnp.arange(size)[None, :]


_summed = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
