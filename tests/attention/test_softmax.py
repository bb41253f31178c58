"""Softmax attention over given keys, and the queries that see none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.attention.softmax import attend

B, T, S, H, DK, DV = 2, 5, 7, 2, 4, 6


def arrays(dtype):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(B, n, H, d)) for n, d in ((T, DK), (S, DK), (S, DV)))
    sees = rng.uniform(size=(B, T, S)) < 0.5
    sees[:, 0] = False  # a query that sees nothing
    sees[:, 1, 3] = True
    return *(jnp.asarray(x, dtype) for x in (q, k, v)), jnp.asarray(sees)


@pytest.mark.parametrize("as_written", [True, False])
def test_a_query_that_sees_nothing_answers_zero_with_finite_gradients(as_written):
    q, k, v, sees = arrays(jnp.float32)

    def total(q, k, v):
        y = attend(q, k, v, sees, 0.5, as_written=as_written)
        return jnp.sum(jnp.sin(y)), y

    gradients, y = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    np.testing.assert_array_equal(y[:, 0], 0)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in (y, *gradients))


@pytest.mark.usefixtures("float64")
def test_it_is_the_softmax_over_what_is_seen():
    q, k, v, sees = arrays(jnp.float64)
    got = attend(q, k, v, sees, 0.5, as_written=False)
    for b, t, h in np.ndindex(B, T, H):
        seen = np.flatnonzero(sees[b, t])
        scores = 0.5 * np.asarray(k[b, seen, h]) @ np.asarray(q[b, t, h])
        weights = np.exp(scores - scores.max(initial=0))
        want = weights @ np.asarray(v[b, seen, h]) / max(weights.sum(), 1e-300)
        np.testing.assert_allclose(got[b, t, h], want, rtol=1e-12, atol=1e-14)
