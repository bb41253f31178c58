"""The recipe as data: ranges, JSON and the schedule that comes of it."""

import numpy as np
import pytest

from miras.config import config_hash, from_json, to_json
from miras.errors import ConfigError
from miras.train import RunConfig, TrainConfig
from miras.train.schedule import schedule
from tests.tolerances import tolerance

CLOSE = tolerance(np.float32, factor=8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 2**31),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup", -1),
        ("weight_decay", -0.1),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("clip", 0.0),
        ("accumulate", 0),
        ("eval_every", 0),
        ("eval_batches", 0),
        ("log_every", 0),
        ("health_every", 0),
        ("checkpoint_every", 0),
        ("checkpoint_minutes", 0.0),
        ("keep", 0),
        ("seed", 2**32),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"(train|TrainConfig)\.{name}={value}"):
        TrainConfig(**{name: value})


def test_wrong_types_are_refused():
    with pytest.raises(ConfigError, match="steps='many' is not a whole number"):
        TrainConfig(steps="many")


def test_a_run_survives_json_with_its_hash(tiny):
    config = tiny("model.rule.memory=mlp", "train.warmup=none")
    again = from_json(RunConfig, to_json(config))
    assert again == config
    assert config_hash(again) == config_hash(config)
    assert config_hash(tiny("train.steps=9")) != config_hash(tiny())


def test_the_schedule_warms_up_and_falls_to_a_tenth():
    rate = schedule(TrainConfig(steps=100, warmup=10, learning_rate=1.0))
    rates = np.array([rate(step) for step in range(101)])
    np.testing.assert_allclose(rates[:11], np.linspace(1 / 11, 1, 11), rtol=CLOSE)
    assert (np.diff(rates[10:]) < 0).all()
    np.testing.assert_allclose(rates[55], 0.55, rtol=CLOSE)
    np.testing.assert_allclose(rates[100], 0.1, rtol=CLOSE)


def test_the_warm_up_must_be_shorter_than_the_run():
    with pytest.raises(ConfigError, match=r"train\.warmup=10 must be less than train\.steps=10"):
        schedule(TrainConfig(steps=10, warmup=10))


def test_the_default_warm_up_fits_any_run():
    assert [TrainConfig(steps=n).warmup_steps for n in (1, 50, 5000)] == [0, 5, 100]
