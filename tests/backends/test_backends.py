"""Every memory with every bias and retention: `xla` equals `reference`, in value and gradient."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from tests import cases, selection

pytestmark = pytest.mark.usefixtures("float64")

RULES = cases.legal_rules()


def value_and_gradients(rule, backend, args, weights, **options):
    def objective(W0, q, k, v, gates):
        y, state = miras.scan(rule, W0, q, k, v, gates, backend=backend, **options)
        total = jnp.sum(weights * y)
        memory = (state.A, state.S, state.R)  # R is where the next chunk starts
        for leaf in jax.tree.leaves(memory):
            total = total + jnp.mean(jnp.sin(leaf))
        return total, (y, memory)

    return jax.value_and_grad(objective, argnums=(0, 1, 2, 3, 4), has_aux=True)(*args)


def compare(rule, *, T, chunk, seed=0, **options):
    args = jax.tree.map(jnp.asarray, cases.inputs(rule, B=1, T=T, H=2, D=2, seed=seed))
    weights = np.random.default_rng(seed).normal(size=(1, T, 2, 2))
    want = value_and_gradients(rule, "reference", args, weights, chunk=chunk, **options)
    got = value_and_gradients(rule, "xla", args, weights, chunk=chunk, **options)
    chex.assert_tree_all_finite(want)
    chex.assert_trees_all_close(got, want, rtol=1e-9, atol=1e-9)


AXES = ("memory", "bias", "retention", "algorithm", "order")


def pairs(name: str) -> set[tuple]:
    """Every two options of a rule, by axis; an order is an option too."""
    return set(itertools.combinations(zip(AXES, name.split("-")), 2))


# A rule for every two options that some legal rule joins; `make exhaustive` runs all the others.
SAMPLE = selection.covering({name: pairs(name) for name in RULES})


# Many rules a test, since they share operations, which are compiled once as long as a test lasts.
@pytest.mark.slow
@pytest.mark.parametrize("share", ["sample", pytest.param("rest", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("retention", cases.RETENTIONS)
@pytest.mark.parametrize("memory", cases.MEMORIES)
def test_every_memory_bias_and_retention(memory, retention, share):
    every = [name for name in RULES if name.split("-")[::2][:2] == [memory, retention]]
    names = [name for name in every if (name in SAMPLE) == (share == "sample")]
    assert names
    # Op by op: compiling two programs for each of some hundreds of rules would take far longer.
    with jax.disable_jit():
        for name in names:
            try:
                compare(RULES[name], T=2, chunk=2)
            except AssertionError as error:
                raise AssertionError(name) from error


def test_the_sample_joins_every_two_options():
    assert set().union(*map(pairs, SAMPLE)) == set().union(*map(pairs, RULES))
    for axis, options in zip(AXES, (cases.MEMORIES, cases.BIASES, cases.RETENTIONS)):
        assert {name.split("-")[AXES.index(axis)] for name in SAMPLE} == set(options)


COMPILED = [
    "matrix-l2-l2-momentum-decay_first",
    "mlp-huber_mixture-l2-momentum-learn_first",
    "mlp-lp3-lq_chunk-gd-learn_first",
    "mlp-l2-kl_chunk-momentum-learn_first",
]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_with_segments_and_mask(name):
    segments = jnp.asarray([[0] * 3 + [1] * 6 + [2] * 2])
    mask = jnp.asarray([[True] * 4 + [False] + [True] * 6])
    compare(RULES[name], T=11, chunk=4, segment_ids=segments, mask=mask)
