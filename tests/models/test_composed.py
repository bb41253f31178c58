"""Models that a seeded generator composes of blocks, mixers and rules."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.analysis.describe import description
from miras.config import from_dict, to_dict
from miras.models import (
    LanguageModel,
    LanguageModelConfig,
    Session,
    decode_step,
    load_session,
    prefill,
    save_session,
)
from miras.presets import PRESETS
from tests import selection
from tests.models.composed import composed
from tests.tolerances import tolerance

MODELS = {f"model{seed}": seed for seed in range(40)}
QUICK = {"model0", "model3"}  # compiled by default; all are built
LENGTH = 12


@functools.cache
def build(name: str) -> LanguageModel:
    model = LanguageModel(composed(MODELS[name]), nnx.Rngs(0))
    graph, params = nnx.split(model)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.02 * jax.random.normal(next(keys), p.shape), params)
    return nnx.merge(graph, params)


def tokens() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 7, (2, LENGTH)))


@functools.partial(jax.jit, static_argnums=0)
def forward(graph, params, x):
    return nnx.merge(graph, params)(x)


def close(got, want):
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(got, want, atol=tolerance(np.float32, 1024, 16) * scale)


def test_the_sample_has_every_mixer_and_channel():
    blocks = [composed(n).block(x) for n in MODELS.values() for x in composed(n).letters]
    kinds = {"memory", "attention", "mac", "mag", "mal", "parallel"}
    assert {block.mixer.kind for block in blocks} == kinds
    assert {block.channel.kind for block in blocks} == {"swiglu", "none"}
    assert len({json.dumps(to_dict(composed(n))) for n in MODELS.values()}) >= 38


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_saved_described_and_takes_a_call(name):
    """Nothing is computed: the shapes of the logits and of the state, before and after a call."""
    config = composed(MODELS[name])
    assert from_dict(LanguageModelConfig, json.loads(json.dumps(to_dict(config)))) == config
    if MODELS[name] % 5 == 0:
        assert "FLOPs" in description(PRESETS["yaad"], config)

    def call():
        model = LanguageModel(config, nnx.Rngs(0))
        return model.init_state(2), *model(tokens())

    before, logits, after = nnx.eval_shape(call)
    assert logits.shape == (2, LENGTH, 7)
    if not config.growth_bytes:
        assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
            lambda x: (x.shape, x.dtype), after
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", selection.sampled(MODELS, QUICK))
def test_a_model_steps_streams_and_goes_on_from_a_session(name, tmp_path):
    model, x = build(name), tokens()
    graph, params = nnx.split(model)

    @jax.jit
    def step(params):
        def loss(params):
            logits, _ = nnx.merge(graph, params)(x)
            return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[..., 0])

        return jax.value_and_grad(loss)(params)

    value, gradient = step(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    whole, _ = forward(graph, params, x)
    for t in (1, 5, LENGTH - 1):
        changed, _ = forward(graph, params, x.at[:, t].set((x[:, t] + 3) % 7))
        np.testing.assert_array_equal(changed[:, :t], whole[:, :t])
    logits, state = prefill(model, x[:, :7])
    close(logits, whole[:, 6])
    save_session(tmp_path / "session", model, Session(state, logits, 7))
    state = load_session(tmp_path / "session", model).state
    for t in range(7, LENGTH):
        logits, state = decode_step(model, x[:, t], state)
        close(logits, whole[:, t])


def test_names_of_the_same_blocks_load_as_old_ones():
    assert miras.override(miras.preset("yaad"), "blocks={}") == miras.preset("yaad")
