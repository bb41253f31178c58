"""TTT's averaged steps: splits, masks and segments anywhere, gradients, and older configs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.config import from_dict, to_dict
from miras.layers.config import LayerConfig
from tests.rules import inputs

T, CHUNK = 13, 8
AVERAGE = np.maximum(0.0, 1 / (1 + np.arange(CHUNK)) + np.array([0, 0.3, -0.4, 0, 0.1, -1, 0.2, 0]))


def made():
    """TTT-MLP's rule, and arrays with biases off 0."""
    rule = miras.preset("ttt_mlp").rule
    W0, q, k, v, gates = inputs(rule, T=T)
    rng = np.random.default_rng(0)
    W0 = {name: leaf + 0.1 * rng.normal(size=leaf.shape) for name, leaf in W0.items()}
    return rule, (W0, q, k, v, {"lr": 10 * gates["lr"]})


def scan(rule, arrays, **options):
    """The reads and the last state."""
    return miras.scan(rule, *arrays, chunk=CHUNK, average=AVERAGE, **options)


def same(got, want):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("float64")
def test_a_sequence_split_inside_chunks_is_the_whole():
    rule, (W0, q, k, v, gates) = made()
    want, end = scan(rule, (W0, q, k, v, gates), backend="reference")
    state, parts = None, []
    for low, high in ((0, 3), (3, 4), (4, 13)):
        cut = lambda x, low=low, high=high: x[:, low:high]  # noqa: E731
        arrays = (W0, cut(q), cut(k), cut(v), {"lr": cut(gates["lr"])})
        y, state = scan(rule, arrays, state=state, backend="xla")
        parts.append(y)
    assert state is not None
    same((np.concatenate(parts, 1), state.A, state.S), (want, end.A, end.S))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", ["mask", "segment_ids"])
def test_gradients_under_masks_and_segments(label):
    rule, arrays = made()
    labels = {
        "mask": np.random.default_rng(1).uniform(size=(2, T)) > 0.4,
        "segment_ids": np.repeat([[0, 1, 2]], 2, 0).repeat([5, 2, 6], 1),
    }

    def objective(arrays, backend):
        y, state = scan(rule, arrays, backend=backend, **{label: labels[label]})
        return jnp.sum(jnp.sin(y)) + sum(jnp.sum(leaf**2) for leaf in state.A.values())

    got, want = (
        jax.jit(jax.value_and_grad(functools.partial(objective, backend=backend)))(arrays)
        for backend in ("xla", "reference")
    )
    same(got, want)


def test_what_does_not_fit_is_told_in_one_sentence():
    rule, arrays = made()
    for average in (AVERAGE[:3], -AVERAGE - 1, AVERAGE * np.nan):
        with pytest.raises(miras.ConfigError, match="average"):
            miras.scan(rule, *arrays, chunk=CHUNK, average=average)
    plain = miras.override(rule, "algorithm.averaged=false")
    with pytest.raises(miras.ConfigError, match="averaged=True"):
        miras.scan(plain, *arrays, chunk=CHUNK, average=AVERAGE)
    both = LayerConfig(lr_by_position=True)
    with pytest.raises(miras.ConfigError, match="lr_by_position"):
        both.check_rule(rule)


def test_a_config_of_before_keeps_its_meaning():
    """Each gradient scaled by its own position, and no biases."""
    old = to_dict(miras.preset("ttt_mlp"))
    del old["rule"]["memory"]["biases"], old["rule"]["algorithm"]["averaged"]
    old["layer"]["lr_by_position"] = True
    config = from_dict(type(miras.preset("ttt_mlp")), old)
    assert not config.rule.algorithm.averaged
    assert config.layer.lr_by_position
    assert "b1" not in config.rule.init(jax.random.key(0), 4, heads=1)


def test_newton_has_no_steps_to_average():
    with pytest.raises(miras.ConfigError, match="no steps to average"):
        miras.Rule("matrix", algorithm={"kind": "newton", "averaged": True})
