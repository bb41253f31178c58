"""Sunk equations compute the same with fewer values live at once."""

import jax
import jax.numpy as jnp
import numpy as np

from miras.backends.pallas.gpu.registers import register_bytes
from miras.backends.pallas.gpu.sinking import sunk
from miras.backends.pallas.trace.jaxprs import evaluate
from miras.backends.pallas.trace.liveness import peak_live_size
from miras.backends.pallas.trace.program import trace
from miras.backends.pallas.trace.shared_lowerings import CALLS

X = np.linspace(-1, 1, 512, dtype=np.float32).reshape(16, 32)


def test_derivatives_are_computed_where_they_are_used():
    def gradient(x):
        def chain(x):
            for _ in range(6):
                x = x * jnp.sin(x)
            return jnp.sum(x)

        return jax.grad(chain)(x)

    jaxpr = trace(gradient, X).jaxpr
    order = sunk(jaxpr.eqns, register_bytes)
    assert sorted(map(id, order)) == sorted(map(id, jaxpr.eqns))
    after = jaxpr.replace(eqns=order)
    assert peak_live_size(after, register_bytes) < peak_live_size(jaxpr, register_bytes)
    for one, want in zip(evaluate(CALLS, after, [], X), evaluate(CALLS, jaxpr, [], X)):
        np.testing.assert_array_equal(one, want)


def test_an_equation_stays_whose_operand_would_live_longer():
    """A sum is smaller than what it sums; and a result without a reader has no place to go."""

    def sums(x):
        big = jnp.cos(x)
        small = jnp.sum(big, axis=1)
        written = jnp.exp(big)
        return written, small * jnp.sum(jnp.sin(x), axis=1)

    eqns = trace(sums, np.ones((64, 64), np.float32)).jaxpr.eqns
    assert sunk(eqns, register_bytes) == eqns
