"""What a kernel saves for the backward pass is not computed where a block is rematerialised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import subjaxprs
from jax.interpreters.partial_eval import dce_jaxpr

import miras
from miras.backends.pallas.dead_outputs import with_saved
from miras.backends.pallas.interpreter import interpreted
from tests.backends.pallas.calls import call


def equations(jaxpr, name):
    """All equations of a primitive, inner ones as well, but not those of kernels."""
    found = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == name]
    for inner in subjaxprs(jaxpr):
        found += equations(inner, name)
    return found


def twice(x, *, save):
    return [2 * x, 3 * x], {"saved": jnp.sin(x)} if save else None


def test_an_output_that_nothing_reads_is_left_out():
    (double, triple), saved = with_saved(twice, jnp.ones(2))
    np.testing.assert_array_equal(double, [2, 2])
    np.testing.assert_array_equal(triple, [3, 3])
    np.testing.assert_array_equal(saved["saved"], jnp.sin(jnp.ones(2)))
    np.testing.assert_array_equal(
        jax.vmap(lambda x: with_saved(twice, x)[0][1])(jnp.arange(3.0)), [0, 3, 6]
    )

    jaxpr = jax.make_jaxpr(lambda x: jax.tree.leaves(with_saved(twice, x)))(1.0).jaxpr
    for read, sines in [([0, 1, 0], 0), ([1, 1, 0], 0), ([0, 0, 1], 1), ([0, 1, 1], 1)]:
        alive, _ = dce_jaxpr(jaxpr, [bool(n) for n in read])
        assert len(alive.outvars) == sum(read)
        assert str(alive).count(" = sin ") == sines
        assert dce_jaxpr(alive, [True] * sum(read))[0].eqns


@pytest.mark.parametrize("policy", [None, "memory_state"])
def test_the_forward_pass_of_a_rematerialised_block_saves_no_memory(policy):
    static, arrays = call("linear_attention", B=2, T=16, dk=4, dtype=np.float32)
    keep = jax.checkpoint_policies.save_only_these_names(policy) if policy else None

    @functools.partial(jax.checkpoint, policy=keep)
    def block(x, inputs):
        y, _ = miras.scan(static["rule"], *inputs, exact=static["exact"], chunk=8, backend="pallas")
        return x + jnp.sum(jnp.sin(y)), None

    def total(inputs):
        stacked = jax.tree.map(lambda x: jnp.stack([x, x]), inputs)
        return jax.lax.scan(block, 0.0, stacked)[0]

    with interpreted("gpu"):
        jaxpr = jax.make_jaxpr(jax.grad(total))(arrays["inputs"])
    calls = equations(jaxpr.jaxpr, "with_saved")
    saves = [len(eqn.outvars) > eqn.params["results"] for eqn in calls]
    assert saves == ([False, True] if policy is None else [True, False])
