"""Classifier: its pooled logits from a language model's features, padding, and its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras import Rule
from miras.errors import ConfigError
from miras.models import Classifier, LanguageModel, LanguageModelConfig
from miras.models.classifier import pooling_weights

CONFIG = LanguageModelConfig(
    Rule(memory="matrix", bias="l2", retention="l2", algorithm="gd"),
    vocab=6,
    width=8,
    layers=2,
    heads=2,
    chunk=4,
    remat=False,
)
LENGTHS = (9, 5, 1)


@pytest.fixture(scope="module")
def rows():
    tokens = np.random.default_rng(0).integers(0, 6, (3, 12))
    return tokens, np.arange(12) < np.array(LENGTHS)[:, None]


def numpy_logits(features, mask, kernel, bias, pooling):
    """The definition, row by row and token by token."""
    found = []
    for row, present in zip(features, mask, strict=True):
        own = [x for x, here in zip(row, present, strict=True) if here]
        pooled = own[-1] if pooling == "last" else sum(own) / len(own)
        found.append([sum(pooled * column) for column in kernel.T] + bias)
    return np.array(found)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_logits_are_of_the_pooled_features_of_a_language_model(rows, pooling):
    tokens, mask = rows
    model = Classifier(CONFIG, 3, nnx.Rngs(1), pooling)
    model.class_bias[...] = jnp.array([0.5, -1.0, 2.0])
    language = LanguageModel(CONFIG, nnx.Rngs(2))
    for part in ("embedding", "groups", "norm"):
        setattr(language, part, getattr(model, part))
    features = np.asarray(language.features(tokens, mask=mask), np.float64)
    kernel, bias = (
        np.asarray(x[...], np.float64) for x in (model.class_head.kernel, model.class_bias)
    )
    want = numpy_logits(features, mask, kernel, bias, pooling)
    np.testing.assert_allclose(model(tokens, mask=mask), want, atol=3e-6)
    logits, health = model.observe(tokens, mask=mask)
    np.testing.assert_allclose(logits, want, atol=3e-6)
    assert health.inner_loss.shape == (2,)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_anywhere_changes_nothing(rows, pooling):
    tokens, mask = rows
    model = Classifier(CONFIG, 2, nnx.Rngs(1), pooling)
    want = [model(row[None, :n])[0] for row, n in zip(tokens, LENGTHS, strict=True)]
    np.testing.assert_allclose(model(tokens, mask=mask), want, atol=2e-6)
    left = [np.roll(row, 12 - n) for row, n in zip(tokens, LENGTHS, strict=True)]
    np.testing.assert_allclose(model(np.array(left), mask=mask[:, ::-1]), want, atol=2e-6)
    other = np.where(mask, tokens, 5)
    np.testing.assert_array_equal(model(other, mask=mask), model(tokens, mask=mask))


def test_weights_of_a_row_without_tokens_are_0():
    mask = np.zeros((1, 4), bool)
    for pooling in ("mean", "last"):
        assert pooling_weights(jnp.asarray(mask), pooling).tolist() == [[0.0] * 4]


def test_gradients_are_finite_and_reach_all_parameters(rows):
    tokens, mask = rows
    graphdef, params = nnx.split(Classifier(CONFIG, 2, nnx.Rngs(1)), nnx.Param)

    def loss(params):
        return jnp.sum(nnx.merge(graphdef, params)(tokens, mask=mask) ** 2)

    gradient = nnx.to_pure_dict(jax.grad(loss)(params))
    sizes = [float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradient)]
    assert np.isfinite(sizes).all()
    assert {"embedding", "groups", "norm", "class_head", "class_bias"} == set(gradient)
    assert float(jnp.linalg.norm(gradient["embedding"])) > 0


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="classes=1 must be at least 2"):
        Classifier(CONFIG, 1, nnx.Rngs(0))
