"""Activations and norms whose derivatives are written out, against those that jax finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.memory.activations import ACTIVATIONS
from miras.memory.norms import normalise

PLAIN = {
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
}


def three_times(f):
    """F and its first three derivatives by a scalar."""
    functions = [f]
    for _ in range(3):
        functions.append(jax.grad(functions[-1]))
    return lambda x: jnp.stack([jax.vmap(g)(x) for g in functions])


@pytest.mark.parametrize("name", PLAIN)
def test_gelu_and_its_derivatives(name):
    x = np.concatenate([np.linspace(-8, 8, 401), [0.0, 40.0, -40.0]])
    with jax.enable_x64(True):
        got, want = three_times(ACTIVATIONS[name])(x), three_times(PLAIN[name])(x)
    # 1 - tanh^2 loses all but its absolute precision, in either form, before factors of which the
    # third derivative sums six of up to x u'^3.
    slope = 0.8 * (1 + 3 * 0.045 * 8**2)
    atol = 6 * 8 * slope**3 * np.finfo(np.float64).eps
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=atol)


def plain_norm(z, norm, eps):
    z = z - z.mean(-1, keepdims=True) if norm == "layer" else z
    return z / jnp.sqrt((z * z).mean(-1, keepdims=True) + eps)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_and_their_derivatives(norm):
    z, dz, dx = np.random.default_rng(0).normal(size=(3, 4, 7))

    def both(f):
        """The norm, its derivative along dz, and the gradient of that by z."""
        along = lambda z: jax.jvp(lambda z: f(z, norm, 0.1), (z,), (dz,))  # noqa: E731
        second = jax.grad(lambda z: jnp.sum(along(z)[1] * dx))(z)
        return *along(z), jax.grad(lambda z: jnp.sum(f(z, norm, 0.1) * dx))(z), second

    with jax.enable_x64(True):
        for got, want in zip(both(normalise), both(plain_norm), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-13)
