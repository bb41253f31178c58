"""Every legal combination of members: `xla` equals `reference`, in value and in gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from tests import cases

pytestmark = pytest.mark.usefixtures("float64")

RULES = cases.legal_rules()


def run(rule, backend, **options):
    """A function of W0, q, k, v and gates: outputs, and all of the state that has a value."""

    def outputs(W0, q, k, v, gates):
        y, state = miras.scan(rule, W0, q, k, v, gates, backend=backend, **options)
        return y, (state.A, state.S, state.R)  # R is where the next chunk starts

    return outputs


def arguments(rule, T, seed=0):
    return jax.tree.map(jnp.asarray, cases.inputs(rule, B=1, T=T, H=2, D=2, seed=seed))


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), tree)


def agree(got, want):
    chex.assert_tree_all_finite(want)
    chex.assert_trees_all_close(got, want, rtol=1e-9, atol=1e-9)


# Many rules a test, since they share operations, which are compiled once as long as a test lasts.
@pytest.mark.slow
@pytest.mark.parametrize("retention", cases.RETENTIONS)
@pytest.mark.parametrize("memory", cases.MEMORIES)
def test_every_legal_combination(memory, retention):
    """Every output and its derivative, in all inputs at once along a random direction.

    Two Jacobians that differ anywhere differ along it, but for a set of directions of measure 0.
    """
    names = [name for name in RULES if name.split("-")[::2][:2] == [memory, retention]]
    assert len(names) >= 20
    # Op by op: compiling two programs for each of some hundreds of rules would take far longer.
    with jax.disable_jit():
        for name in names:
            args = arguments(RULES[name], T=2)
            want, got = (
                jax.jvp(run(RULES[name], backend, chunk=2), args, random_like(args, seed=1))
                for backend in ("reference", "xla")
            )
            try:
                agree(got, want)
            except AssertionError as error:
                raise AssertionError(name) from error


COMPILED = [
    "matrix-l2-l2-momentum-decay_first",
    "mlp-huber_mixture-l2-momentum-learn_first",
    "mlp-lp3-lq_chunk-gd-learn_first",
    "mlp-l2-kl_chunk-momentum-learn_first",
]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_and_backwards_with_segments_and_mask(name):
    options = {
        "chunk": 4,
        "segment_ids": jnp.asarray([[0] * 3 + [1] * 6 + [2] * 2]),
        "mask": jnp.asarray([[True] * 4 + [False] + [True] * 6]),
    }
    args = arguments(RULES[name], T=11)

    def value_and_gradients(backend):
        outputs, pull = jax.vjp(run(RULES[name], backend, **options), *args)
        return outputs, pull(random_like(outputs, seed=1))

    agree(value_and_gradients("xla"), value_and_gradients("reference"))
