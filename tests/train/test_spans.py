"""Parameters that are updated once in several updates: the levels of the channel mixer `cms`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from miras import override, preset
from miras.errors import ConfigError
from miras.models import LanguageModel
from miras.train import TrainConfig, train
from miras.train.optimizer import Gradient, optimizer_of
from miras.train.spans import spans_of
from miras.train.state import structure

SMALL = ("width=8", "layers=2", "heads=1", "chunk=4", "channel=cms", "channel.periods=[1,20,30]")
TOKENS = 10  # of an update, so that the levels are updated every 1, 2 and 3 updates
LEVELS = {"level0": 1, "level1": 2, "level2": 3}


def params_of(*words):
    return structure(override(preset("linear_attention"), *SMALL, *words))[1]


def drawn(params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)


def named(tree):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def span_of(name):
    return next((span for level, span in LEVELS.items() if level in name), 1)


def test_periods_in_tokens_become_whole_updates():
    spans = named(spans_of(params_of(), TOKENS))
    assert sum("level" in name for name in spans) == 6
    assert all(span == span_of(name) for name, span in spans.items())
    assert set(named(spans_of(params_of(), 25)).values()) == {1, 2}  # rounded up
    with pytest.raises(ConfigError, match=r"cms.periods=\[0\] must be at least one number"):
        params_of("channel.periods=[0]")


@pytest.mark.parametrize("optimizer", ["muon", "adafactor"])
def test_a_level_takes_one_step_of_the_mean_gradient_of_its_span(optimizer):
    """At every sixth update all levels are due; each equals a run of its own on mean gradients."""
    config = TrainConfig(
        steps=20, warmup=0, schedule="constant", optimizer=optimizer, clip=1e9, accumulate=1
    )
    abstract = params_of()
    start = drawn(abstract.to_pure_dict(), 0)
    transform = optimizer_of(config, abstract, TOKENS)
    plain = optimizer_of(config, abstract, 10**9)
    gradients = [drawn(start, seed) for seed in range(1, 7)]
    one = jnp.ones(())

    def run(transform, gradients):
        params, state, found = start, transform.init(start), []
        update = jax.jit(transform.update)
        for gradient in gradients:
            updates, state = update(Gradient(gradient, one), state, params)
            params = optax.apply_updates(params, updates)
            found.append(named(params))
        return found

    got = run(transform, gradients)
    for span in (1, 2, 3):
        groups = [gradients[n : n + span] for n in range(0, 6, span)]
        means = [jax.tree.map(lambda *g: sum(g) / len(g), *group) for group in groups]
        want = run(plain, means)
        for name in got[0]:
            if span_of(name) != span:
                continue
            for n in range(6):
                done = (n + 1) // span
                expected = named(start)[name] if done == 0 else want[done - 1][name]
                np.testing.assert_allclose(got[n][name], expected, rtol=2e-5, atol=2e-6)


def test_accumulated_batches_count():
    config = TrainConfig(steps=20, warmup=0, accumulate=2)
    abstract = params_of()
    start = drawn(abstract.to_pure_dict(), 0)
    transform = optimizer_of(config, abstract, TOKENS // 2)
    params, state = start, transform.init(start)
    update = jax.jit(transform.update)
    for seed, due in enumerate([{1}, {1, 2}, {1, 3}], 1):
        updates, state = update(Gradient(drawn(start, seed), jnp.ones(())), state, params)
        moved = {name for name, x in named(updates).items() if jnp.any(x != 0)}
        assert {span_of(name) for name in moved} == due


@pytest.mark.exhaustive
def test_a_run_updates_a_level_after_its_tokens_and_resumes_within_a_span(tiny, tmp_path):
    """64 tokens an update: the second level waits for the third update, over a resumption."""
    words = ("channel=cms", "channel.periods=[1,192]", "schedule=constant", "warmup=1")
    whole = train(tiny(*words, steps=3), tmp_path / "whole")
    first = train(tiny(*words, steps=2), tmp_path / "cut")
    start = nnx.to_pure_dict(
        nnx.split(LanguageModel(tiny(*words).model, nnx.Rngs(0)), nnx.Param)[1]
    )
    for name, x in named(first.state.params).items():
        assert np.array_equal(x, named(start)[name]) == ("level1" in name), name
    second = train(tiny(*words, steps=3), tmp_path / "cut")
    assert second.resumed_from == 2
    for name, x in named(second.state.params).items():
        np.testing.assert_array_equal(x, named(whole.state.params)[name])
        assert not np.array_equal(x, named(start)[name])
