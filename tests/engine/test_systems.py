"""Linear systems against NumPy, with their derivatives, and none of them left to LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import miras
from miras.engine.systems import inverse_positive, solve_by_column, solve_unit_lower
from tests import rules

pytestmark = pytest.mark.usefixtures("float64")


def strictly_lower(rng, *shape):
    return np.tril(rng.normal(size=shape), -1)


@pytest.mark.parametrize("n", [1, 2, 3, 16, 37, 64])
def test_unit_lower(n):
    rng = np.random.default_rng(n)
    lower, target = strictly_lower(rng, n, n) / np.sqrt(n), rng.normal(size=(n, 5))
    want = np.linalg.solve(np.eye(n) + lower, target)
    np.testing.assert_allclose(solve_unit_lower(lower, target), want, rtol=1e-9, atol=1e-9)


def test_one_system_a_column():
    rng = np.random.default_rng(0)
    lower, target = strictly_lower(rng, 3, 7, 7), rng.normal(size=(7, 3))
    want = np.linalg.solve(np.eye(7) + lower, target.T[:, :, None])[:, :, 0].T
    got = solve_by_column(lower.transpose(1, 2, 0), target)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 9, 32])
def test_positive_definite(n):
    factor = np.random.default_rng(n).normal(size=(n, n + 2))
    matrix = factor @ factor.T + 0.1 * np.eye(n)
    want = np.linalg.inv(matrix)
    np.testing.assert_allclose(inverse_positive(matrix), want, rtol=1e-9, atol=1e-9)


def test_derivatives():
    rng = np.random.default_rng(0)
    lower, target = strictly_lower(rng, 5, 5), rng.normal(size=(5, 2))
    check_grads(lambda n, b: solve_unit_lower(jnp.tril(n, -1), b), (lower, target), order=2)
    factor = rng.normal(size=(4, 6))
    check_grads(lambda f: inverse_positive(f @ f.T + jnp.eye(4)), (factor,), order=2)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_derivatives_of_many_systems(n):
    """As `scan` has them, one a head and row; of one token where segments begin anywhere."""
    rng = np.random.default_rng(n)
    lower, target = strictly_lower(rng, 2, 3, n, n), rng.normal(size=(2, 3, n, 2))
    solve = jax.vmap(jax.vmap(lambda low, b: solve_unit_lower(jnp.tril(low, -1), b)))
    check_grads(jax.jit(solve), (lower, target), order=1)


SOLVED = {
    "deltanet": miras.Rule("matrix", "l2", "none", "gd"),
    "longhorn": miras.Rule("matrix", "l2", "none", {"kind": "implicit", "granularity": "value"}),
    "mesa": miras.Rule("matrix", "l2", "l2", {"kind": "newton", "solver": "exact"}),
}


@pytest.mark.parametrize("backend", ["reference", "xla"])
@pytest.mark.parametrize("name", SOLVED)
def test_no_call_of_lapack(name, backend):
    """Two at once wait for each other for ever, on a machine with two cores."""
    rule = SOLVED[name]
    W0, q, k, v, _ = rules.inputs(miras.Rule("matrix", "l2", "none", "gd"))
    gates = {gate.name: jnp.full(q.shape[:3], -0.1 if "log" in gate.name else 0.1)
             for gate in rule.gates}  # fmt: skip
    if name == "longhorn":
        gates = {n: jnp.full(v.shape, 0.1) for n in gates}
    exact = backend == "xla" and rule.kinds()["algorithm"] != "newton"

    def total(*args):
        y, _ = miras.scan(rule, *args, chunk=4, backend=backend, exact=exact)
        return jnp.sum(y)

    program = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3, 4))).lower(W0, q, k, v, gates)
    assert "while" in program.as_text()
    assert "lapack" not in program.as_text()
