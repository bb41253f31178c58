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
    save_session,
)
from miras.presets import PRESETS
from tests import selection
from tests.models.composed import composed, of_each
from tests.tolerances import tolerance

MODELS = {f"model{seed}": seed for seed in range(40)}
# Compiled by default, small ones: one of each mixer but those whose own tests stream them; of all,
# a share is built.
QUICK = {"model28", "model30"}
ELSEWHERE = {"attention", "mac", "mag", "mal", "log_linear", "grouped"}
ELSEWHERE |= {"tnt", "memory_caching", "self_modifying"}
LENGTH = 8


@functools.cache
def build(name: str) -> LanguageModel:
    model = LanguageModel(composed(MODELS[name]), nnx.Rngs(0))
    graph, params = nnx.split(model)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.02 * jax.random.normal(next(keys), p.shape), params)
    return nnx.merge(graph, params)


def tokens() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 7, (2, LENGTH)))


def close(got, want):
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(got, want, atol=tolerance(np.float32, 1024, 16) * scale)


def test_the_samples_have_every_mixer_and_channel():
    kinds = {"memory", "attention", "parallel", "tnt", "memory_caching", "self_modifying"}
    kinds |= ELSEWHERE  # grouped: attention with fewer heads of keys
    for names, wanted in ((MODELS, kinds), (QUICK, kinds - ELSEWHERE)):
        configs = [composed(MODELS[name]) for name in names]
        blocks = [config.block(letter) for config in configs for letter in config.letters]
        drawn = {block.mixer.kind for block in blocks}
        drawn |= {"grouped" for block in blocks if getattr(block.mixer, "kv_heads", None)}
        assert drawn == wanted
        assert {block.channel.kind for block in blocks} == {"swiglu", "none"}
    assert len({json.dumps(to_dict(composed(n))) for n in MODELS.values()}) >= 38


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.sample(0.2)
def test_a_model_is_saved_and_takes_a_call(name):
    """Nothing is computed: the shapes of the logits and of the state, before and after a call."""
    config = composed(MODELS[name])
    assert from_dict(LanguageModelConfig, json.loads(json.dumps(to_dict(config)))) == config

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
def test_a_model_is_described_steps_streams_and_goes_on_from_a_session(name, tmp_path):
    model, x = build(name), tokens()
    graph, params = nnx.split(model)

    @jax.jit
    def step(params, x):
        """The loss, the logits and the gradient: one program for all of the test's whole calls."""

        def loss(params):
            logits, _ = nnx.merge(graph, params)(x)
            return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[..., 0]), logits

        return jax.value_and_grad(loss, has_aux=True)(params)

    (value, whole), gradient = step(params, x)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for t in (1, 5, LENGTH - 1):
        (_, changed), _ = step(params, x.at[:, t].set((x[:, t] + 3) % 7))
        np.testing.assert_array_equal(changed[:, :t], whole[:, :t])
    (after, _), _ = step(jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), x)
    assert after < value
    assert "FLOPs" in description(PRESETS["yaad"], model.config)
    state = model.init_state(2)
    for t in range(LENGTH):
        logits, state = decode_step(model, x[:, t], state)
        close(logits, whole[:, t])
        if t == LENGTH // 2:
            save_session(tmp_path / "session", model, Session(state, logits, t + 1))
            state = load_session(tmp_path / "session", model).state


@pytest.mark.slow
def test_the_other_mixers_stream_as_a_whole_call():
    """Architectures, levels and grouped heads, in one model: tokens one by one, and causal."""
    mixers = {"A": "mac", "B": "mag", "C": "mal", "D": '{"kind": "log_linear", "levels": 3}'}
    mixers["E"] = '{"kind": "attention", "window": 3, "kv_heads": 1}'
    model, x = LanguageModel(of_each(mixers), nnx.Rngs(0)), tokens()[:, :6]
    graph, params = nnx.split(model)
    call = jax.jit(lambda params, x: nnx.merge(graph, params)(x)[0])
    whole, changed = (call(params, y) for y in (x, x.at[:, 4].set((x[:, 4] + 3) % 7)))
    np.testing.assert_array_equal(changed[:, :4], whole[:, :4])
    state = model.init_state(2)
    for t in range(x.shape[1]):
        logits, state = decode_step(model, x[:, t], state)
        close(logits, whole[:, t])


def test_names_of_the_same_blocks_load_as_old_ones():
    assert miras.override(miras.preset("yaad"), "blocks={}") == miras.preset("yaad")
