"""Write strength: its value against NumPy, its curve, and the presets that it was made for."""

import jax
import numpy as np
import pytest

import miras
from miras.analysis.strength import probe
from miras.analysis.strength.curve import _strength, rate_of
from miras.analysis.strength.probe import HEADS, TOKENS
from miras.errors import ConfigError

D = 8
PRESETS = ("yaad", "moneta", "memora", "titans_lmm", "ttt_mlp", "omeganet", "atlas")


def _pairs(d):
    """The probe's unit keys and values, float64."""
    _, of_keys, of_values = jax.random.split(jax.random.key(0), 3)
    k, v = (np.float64(jax.random.normal(key, (TOKENS, HEADS, d))) for key in (of_keys, of_values))
    return k / np.linalg.norm(k, axis=-1, keepdims=True), v


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_a_matrix_memory_has_the_strength_of_its_sum_of_outer_products(decay):
    retention = miras.retention.L2(decay=decay, data_dependent=False)
    rule = miras.Rule(retention=retention, algorithm=miras.optim.GD(lr=0.03))
    k, v = _pairs(D)
    weights = decay ** np.arange(TOKENS - 1, -1, -1.0)
    W = 0.03 * np.einsum("t,thi,thj->hij", weights, k, v)  # from 0 the residual is -v
    expected = np.sum(np.einsum("thi,hij->thj", k, W) * v) / np.sum(v * v)
    found = miras.strength(rule, D)
    np.testing.assert_allclose(found.value, expected, rtol=TOKENS**0.5 * 1e-6)
    np.testing.assert_allclose(found.gain, expected / 0.03, rtol=TOKENS**0.5 * 1e-6)
    assert found.peak is None
    assert found.limit(16) == 1 / 16
    assert rate_of(rule, D, expected) == pytest.approx(0.03, rel=1e-4)


def test_factors_by_position_begin_anew_with_each_chunk():
    rule = miras.Rule(retention=miras.retention.NoRetention(), algorithm=miras.optim.GD(lr=0.03))
    k, v = _pairs(D)
    factors = 1 / (1 + np.arange(TOKENS) % 16)
    W = 0.03 * np.einsum("t,thi,thj->hij", factors, k, v)
    expected = np.sum(np.einsum("thi,hij->thj", k, W) * v) / np.sum(v * v)
    found = miras.strength(rule, D, chunk=16, lr_by_position=True)
    np.testing.assert_allclose(found.value, expected, rtol=TOKENS**0.5 * 1e-6)
    averaged = miras.Rule(
        retention=miras.retention.NoRetention(), algorithm=miras.optim.GD(lr=0.03, averaged=True)
    )
    mean = miras.strength(averaged, D, chunk=16).value * 16
    np.testing.assert_allclose(mean, miras.strength(rule, D).value, rtol=TOKENS**0.5 * 1e-6)


def test_the_curve_rises_to_a_peak_where_the_output_has_a_norm():
    found = miras.strength(miras.preset("yaad").rule, D)
    assert found.peak is not None
    assert found.peak_rate is not None
    assert 0.1 < found.peak < 0.6
    assert found.limit(1) == found.peak / 2
    small = (found.values > 1e-4) & (found.values < 0.03) & (found.rates < found.peak_rate)
    slopes = np.diff(np.log(found.values[small])) / np.diff(np.log(found.rates[small]))
    assert np.all(np.abs(slopes - 1) < 0.1)


@pytest.mark.parametrize(
    ("curve", "peak"),
    [
        (lambda r: 0.1 * r / (1 + r), 0.1),  # saturates
        (lambda r: np.where(r < 11, 0.01 * r, np.nan), 0.1),  # not finite from there on
        (lambda r: -r, 0.0),  # writes go the wrong way
        (lambda r: np.full_like(r, np.nan), 0.0),
        (lambda r: 0.1 * r, None),
    ],
    ids=["saturating", "diverging", "opposed", "nan", "growing"],
)
def test_without_growth_past_1_the_most_that_is_reached_is_the_peak(curve, peak, monkeypatch):
    """So that a target above half of it is declined, and not clamped as without a norm."""
    monkeypatch.setattr(probe, "measure", lambda *_, **__: lambda rates: curve(np.float64(rates)))
    found = _strength.__wrapped__(miras.Rule(), D, 16, False)
    if peak is None:
        assert (found.peak, found.limit(16)) == (None, 1 / 16)
    else:
        assert found.peak == pytest.approx(peak, abs=0.03)
        assert found.limit(16) == found.peak / 2


def test_steps_of_a_set_length_are_flat():
    muon = miras.optim.Muon(every="chunk", lr_at="gradient")
    rule = miras.Rule(algorithm=muon, read="snapshot")
    assert miras.strength(rule, D).flat
    assert not miras.strength(miras.preset("yaad").rule, D).flat


def test_a_rule_without_a_rate_has_no_strength():
    with pytest.raises(ConfigError, match="has no rate"):
        miras.strength(miras.preset("transformer").rule, D)
    with pytest.raises(ConfigError, match="d=0 must be"):
        miras.strength(miras.Rule(), 0)


@pytest.mark.exhaustive
def test_seven_presets_agree_though_their_rates_do_not():
    """Their raw rates differ 2,500 times, their strengths 2.3 times."""
    found = []
    for name in PRESETS:
        config = miras.preset(name)
        found.append(miras.strength(config.rule, 16, chunk=config.chunk).value)
    assert max(found) / min(found) < 2.5
    assert min(found) > 0.02
