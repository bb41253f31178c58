"""The gradients of a layer's weights come before those of the layers below it."""

import jax
import jax.numpy as jnp
import numpy as np

from miras.layers.gradient_order import before_those_below


def loss(order, weights, x):
    weights, h = order(weights, jnp.sin(x))
    return jnp.sum(jnp.tanh(h @ weights["down"]) + h)


def test_values_are_the_same_and_the_gradients_pass_one_barrier():
    weights, x = {"down": jnp.eye(3) / 2}, jnp.arange(6.0).reshape(2, 3)
    gradient = jax.grad(loss, (1, 2))
    plain = gradient(lambda *both: both, weights, x)
    jax.tree.map(np.testing.assert_array_equal, gradient(before_those_below, weights, x), plain)

    jaxpr = jax.make_jaxpr(gradient, static_argnums=0)(before_those_below, weights, x).jaxpr
    (barrier,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "optimization_barrier")
    assert [v.aval.shape for v in barrier.invars] == [(3, 3), (2, 3)]
    assert jaxpr.outvars[0] is barrier.outvars[0]
