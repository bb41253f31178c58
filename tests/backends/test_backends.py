"""Every memory with every bias and retention: `xla` equals `reference`, in value and gradient."""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest

import miras
from miras.testing import random_inputs
from miras.testing.gradients import value_and_gradients
from tests import rules, selection

pytestmark = pytest.mark.usefixtures("float64")

RULES = rules.legal_rules()


def compare(rule, *, T, chunk, seed=0, **options):
    def run(inputs, backend):
        y, state = miras.scan(rule, *inputs, backend=backend, chunk=chunk, **options)
        return y, (state.A, state.S, state.R)  # R is where the next chunk starts

    inputs = jax.tree.map(jnp.asarray, random_inputs(rule, T=T, seed=seed))
    want = value_and_gradients(functools.partial(run, backend="reference"), inputs)
    got = value_and_gradients(functools.partial(run, backend="xla"), inputs)
    chex.assert_tree_all_finite(want)
    chex.assert_trees_all_close(got, want, rtol=1e-9, atol=1e-9)


AXES = ("memory", "bias", "retention", "algorithm", "order")


def options(name: str) -> set[tuple[str, str]]:
    """What a rule has on each axis; an order is an option too."""
    return set(zip(AXES, name.split("-")))


# A rule for every option; `make exhaustive` runs all rules.
SAMPLE = selection.covering({name: options(name) for name in RULES})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAMPLE))
def test_each_option(name):
    with jax.disable_jit():  # compiling two programs for each rule would take far longer
        compare(RULES[name], T=2, chunk=2)


# Many rules a test, since they share operations, which are compiled once as long as a test lasts.
@pytest.mark.exhaustive
@pytest.mark.parametrize("retention", rules.RETENTIONS)
@pytest.mark.parametrize("memory", rules.MEMORIES)
def test_every_memory_bias_and_retention(memory, retention):
    names = [name for name in RULES if name.split("-")[::2][:2] == [memory, retention]]
    assert names
    with jax.disable_jit():
        for name in names:
            try:
                compare(RULES[name], T=2, chunk=2)
            except AssertionError as error:
                raise AssertionError(name) from error


def test_the_sample_has_every_option():
    assert set().union(*map(options, SAMPLE)) == set().union(*map(options, RULES))
    for axis, kinds in zip(AXES, (rules.MEMORIES, rules.BIASES, rules.RETENTIONS)):
        assert {name.split("-")[AXES.index(axis)] for name in SAMPLE} == set(kinds)


COMPILED = [
    "matrix-l2-l2-momentum-decay_first",
    "mlp-huber_mixture-l2-momentum-learn_first",
    "mlp-lp3-lq_chunk-gd-learn_first",
    "mlp-l2-kl_chunk-momentum-learn_first",
]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != COMPILED[0])) for n in COMPILED]
)
@pytest.mark.sample(0.0)
def test_compiled_with_segments_and_mask(name):
    segments = jnp.asarray([[0] * 3 + [1] * 6 + [2] * 2])
    mask = jnp.asarray([[True] * 4 + [False] + [True] * 6])
    compare(RULES[name], T=11, chunk=4, segment_ids=segments, mask=mask)
