"""The forecaster: its norm, patches and head against NumPy in float64, gradients and errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras.config import override
from miras.errors import ConfigError
from miras.models import Forecaster, ForecasterConfig
from miras.presets import preset

MODEL = override(preset("yaad"), "width=8", "heads=2", "layers=1", "chunk=2", "remat=false")
B, SERIES = 3, 2
CASES = [
    {},
    {"affine": True, "series": SERIES},
    {"skip": "linear", "bias": False},
    {"affine": True, "series": SERIES, "skip": "linear", "patch": 5, "stride": 3},
]


def build(**ends: Any):
    sizes: dict[str, Any] = {"lookback": 11, "horizon": 4, "patch": 4, "stride": 2} | ends
    return Forecaster(MODEL, ForecasterConfig(**sizes), nnx.Rngs(0))


def values(dtype: Any = np.float32):
    rng = np.random.default_rng(1)
    scale = np.array([[1.0], [7.0], [0.1]])
    return (3.0 + scale * rng.normal(size=(B, 11))).astype(dtype)


def disturbed(model):
    """The model with parameters that have no zeros or ones, in float64."""
    graph, params = nnx.split(model, nnx.Param)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda p: jnp.asarray(p + 0.3 * rng.normal(size=p.shape)), params)
    return nnx.merge(graph, params)


def expected(model, x, series, blocks):
    """The forecasts, a window and a value at a time, written from the equations."""
    ends = model.ends
    p = {k: np.asarray(v) for k, v in flat(model).items()}
    out = np.zeros((len(x), ends.horizon))
    for b, window in enumerate(x):
        mean = sum(window) / len(window)
        deviation = np.sqrt(sum((v - mean) ** 2 for v in window) / len(window) + 1e-5)
        gamma = p["instance_norm.scale"][series[b]] if ends.affine else 1.0
        beta = p["instance_norm.shift"][series[b]] if ends.affine else 0.0
        z = [gamma * (v - mean) / deviation + beta for v in window]
        padded = z + [z[-1]] * ends.stride
        tokens, start = [], 0
        while start + ends.patch <= len(padded):
            patch = np.array(padded[start : start + ends.patch])
            token = patch @ p["patch.kernel"]
            if ends.bias:
                token = token + p["patch_bias"] + p["position"][len(tokens)]
            tokens.append(token)
            start += ends.stride
        assert len(tokens) == ends.patches
        flat_out = np.concatenate([blocks(token) for token in tokens])
        y = flat_out @ p["head.kernel"]
        if ends.bias:
            y = y + p["head_bias"]
        if ends.skip == "linear":
            y = y + np.array(z) @ p["skip.kernel"]
        out[b] = deviation * (y - beta) / (gamma + 1e-10 * ends.affine) + mean
    return out


def flat(model):
    tree = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="."): v for k, v in leaves}


@pytest.mark.parametrize("ends", CASES)
def test_the_ends_are_those_of_the_equations(ends, monkeypatch):
    def blocks(self, x, *args, health=False):
        return jnp.tanh(x), None, None

    with jax.enable_x64(True):
        monkeypatch.setattr(Forecaster, "apply_blocks", blocks)
        model: Any = disturbed(build(**ends))
        x = values(np.float64)
        series = np.array([1, 0, 1])
        got = model(x, series)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected(model, x, series, np.tanh), rtol=1e-12)


def test_a_forecast_follows_its_window():
    model, x = build(skip="linear"), values()
    scaled = model(2.0 * x + 5.0)
    # eps is what keeps them apart: 1e-5 against variances of 1e-2 and more
    np.testing.assert_allclose(scaled, 2.0 * model(x) + 5.0, rtol=2e-3, atol=2e-3)
    constant = model(jnp.full((1, 11), 4.0))
    np.testing.assert_allclose(constant, 4.0, atol=0.1)


def test_rows_are_read_alone():
    model, x = build(), values()
    np.testing.assert_allclose(model(x)[1:], model(x[1:]), rtol=1e-5, atol=1e-6)


def test_every_parameter_has_a_gradient():
    model, x = build(affine=True, series=SERIES, skip="linear"), values()
    graph, params = nnx.split(model, nnx.Param)

    def loss(params):
        return jnp.sum(jnp.square(nnx.merge(graph, params)(x, np.array([0, 1, 1])) - 1.0))

    gradient = nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert "groups" in str(path) or np.abs(leaf).max() > 0, path
    memories = [leaf for leaf in jax.tree.leaves(gradient["groups"]) if np.abs(leaf).max() > 0]
    assert len(memories) >= 8
    assert model.observe(x, np.array([0, 1, 1]))[1].inner_loss.shape == (1,)


def test_inputs_of_other_shapes_are_errors():
    model = build(affine=True, series=SERIES)
    for wrong in (values()[:, :5], values()[0], values().astype(int)):
        with pytest.raises(ConfigError, match="lookback=11"):
            model(wrong, np.array([0, 1, 1]))
    with pytest.raises(ConfigError, match="which series each row is of"):
        model(values())


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ({"horizon": 0}, "horizon=0 must be at least 1"),
        ({"stride": 5}, "stride=5 must be at most patch=4"),
        ({"patch": 40}, "lookback=11 is too short for patch=40"),
        ({"affine": True}, "needs the number of series"),
        ({"skip": "cubic"}, "linear"),
    ],
)
def test_configs_out_of_range_are_errors(ends, said):
    with pytest.raises(ConfigError, match=said):
        build(**ends)
