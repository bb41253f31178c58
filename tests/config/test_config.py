"""Configs: overrides, JSON, hash, registries and their errors."""

import collections
import dataclasses
import functools
import json
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import miras
from miras.config import Config, FrozenMapping, difference
from miras.memory import Memory
from miras.models import LanguageModelConfig
from miras.presets import PRESETS
from miras.train import RunConfig
from tests import rules

RULE = miras.Rule(memory="mlp", bias="l2", retention="l2", algorithm="momentum")


def test_parts_from_names_objects_and_dicts():
    by_name = miras.Rule(memory="mlp", bias="huber", retention="kl", algorithm="momentum")
    by_object = miras.Rule(
        miras.memory.MLP(), miras.bias.Huber(), miras.retention.KL(), miras.optim.Momentum()
    )
    by_dict = miras.Rule(
        {"kind": "mlp"}, {"kind": "huber"}, {"kind": "kl"}, {"kind": "momentum", "momentum": 0.9}
    )
    assert by_name == by_object == by_dict
    assert miras.bias.Lp(2.5) == miras.Rule(bias={"kind": "lp", "p": 2.5}).bias
    assert miras.retention.Lq(3.0, "mirror").form == "mirror"


def test_override_swaps_parts_and_sets_fields():
    rule = miras.override(RULE, "bias=huber", "bias.delta=0.5", "memory.depth=3", "norm=none")
    assert rule.bias == miras.bias.Huber(delta=0.5)
    assert rule.memory == miras.memory.MLP(depth=3, norm=None)
    model = miras.override(miras.preset("yaad"), "bias=lp", "bias.p=3", "width=64", "tie=false")
    assert (model.rule.bias, model.width, model.tie) == (miras.bias.Lp(p=3.0), 64, False)
    whole = miras.override(RULE, 'retention={"kind": "lq", "q": 3.5}')
    assert whole.retention == miras.retention.Lq(q=3.5)
    assert miras.override(model, "width=1e2", "heads=1").width == 100


def test_fields_that_fit_only_together_may_come_in_any_order():
    model = miras.preset("yaad")
    assert miras.override(model, "heads=3", "width=96").heads == 3
    assert miras.override(model, "width=96", "heads=3").width == 96
    with pytest.raises(miras.ConfigError, match="must be a multiple of"):
        miras.override(model, "heads=3", "width=97")


ERRORS = {
    "bias=hubr": "unknown bias 'hubr': did you mean 'huber'.* The legal ones are huber, dot, ",
    "bias.delt=1": "unknown field of L2Loss 'delt'",
    "widht=3": "unknown key 'widht': .*did you mean 'width'",
    "bias": "'bias' is not of the form key=value",
    "width=abc": "width='abc' is not a whole number",
    "width=1.5": "width=1.5 is not a whole number",
    "mlp_ratio=Infinity": "mlp_ratio=inf must be finite",
    "retention.decay=nan": "decay='nan' is not a number",
    "width=true": "width=True is not a whole number",
    "width=-4": "model.width=-4 must be at least 1",
    "heads=3": "model.width=128 must be a multiple of model.heads=3",
    "memory.norm=batch": "norm='batch' is not one of 'layer', 'rms' or none",
    "memory.depth=0": "MLP.depth=0 must be at least 1",
    "retention.decay=1.5": r"L2.decay=1.5 must be in \(0, 1\]",
    "algorithm.momentum.x=1": "momentum=.* has no field 'x'",
    "data_dependent=true": "is ambiguous: write one of",
    "tie=maybe": "tie='maybe' is not true or false",
    'bias={"p": 3}': "has no 'kind': add one of",
    "layers=" + "9" * 5000: "layers=inf is not a whole number",
}


@pytest.mark.parametrize(("assignment", "message"), ERRORS.items(), ids=[e[:30] for e in ERRORS])
def test_override_errors_name_value_and_legal_ones(assignment, message):
    with pytest.raises(miras.ConfigError, match=message):
        miras.override(LanguageModelConfig(rule=RULE), assignment)


@pytest.mark.slow
def test_a_name_of_several_fields_is_answered_with_their_paths_over_all_presets():
    """Every bare name either has one meaning, or sets nothing and lists where it may belong."""
    ambiguous = set()
    for preset in PRESETS:
        config = RunConfig(miras.preset(preset))
        places = collections.defaultdict(list)
        for where in _paths(config):
            places[where[-1]].append(where)
        for name, found in places.items():
            own = [where for where in found if len(where) <= 2]
            value = functools.reduce(getattr, (own or found)[0], config)
            if isinstance(value, (Config, FrozenMapping)):
                continue
            assignment = f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            if len(own) == 1 or (len(found) == 1 and name != "lr"):
                assert miras.override(config, assignment) == config
                continue
            ambiguous.add(name)
            with pytest.raises(miras.ConfigError, match="is ambiguous") as told:
                miras.override(config, assignment)
            assert all(".".join(where) in str(told.value) for where in own or found)
    assert {"lr", "seed", "rope_base", "activation", "window", "data_dependent"} <= ambiguous


def _paths(config, prefix=()):
    for field in dataclasses.fields(config):
        if config.standing(field.name) == "hidden":  # `override` says that it has no effect
            continue
        yield (*prefix, field.name)
        if isinstance(value := getattr(config, field.name), Config):
            yield from _paths(value, (*prefix, field.name))


def test_the_rate_of_the_run_and_that_of_the_memory_are_two():
    config = RunConfig(miras.preset("yaad"))
    with pytest.raises(
        miras.ConfigError, match=r"model\.rule\.algorithm\.lr, train\.learning_rate"
    ):
        miras.override(config, "lr=0.1")
    assert miras.override(config, "algorithm.lr=0.1").train == config.train
    assert miras.override(config, "model.rule.algorithm.lr=0.1").model.rule.algorithm.lr == 0.1
    assert miras.override(config, "train.learning_rate=0.1").model == config.model
    assert miras.override(config, "learning_rate=0.1").train.learning_rate == 0.1
    assert miras.override(config.model, "lr=0.1").rule.algorithm.lr == 0.1  # no run, one meaning
    with pytest.raises(miras.ConfigError, match="it is 'learning_rate' here"):
        miras.override(config, "train.lr=0.1")


@pytest.mark.parametrize(
    ("text", "value"), [(".001", 1e-3), ("1.", 1.0), ("+.5e-1", 0.05), ("1e-3", 1e-3), ("2", 2.0)]
)
def test_numbers_are_read_as_people_write_them(text, value):
    config = RunConfig(miras.preset("yaad"))
    assert miras.override(config, f"learning_rate={text}").train.learning_rate == value


@pytest.mark.parametrize("field", ["layers", "data.seed", "train.log_every", "memory.depth"])
def test_whole_numbers_that_no_integer_holds_are_refused(field):
    with pytest.raises(miras.ConfigError, match=r"must lie in|at most"):
        miras.override(RunConfig(miras.preset("yaad")), f"{field}={10**23}")


def test_an_order_without_meaning_is_refused_with_the_reason():
    with pytest.raises(miras.ConfigError, match=r"order='decay_first' .* use order='learn_first'"):
        miras.Rule(retention="kl", order="decay_first")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_through_json(name):
    config = miras.preset(name)
    again = miras.from_json(LanguageModelConfig, miras.to_json(config))
    assert again == config
    assert miras.config_hash(again) == miras.config_hash(config)


@pytest.mark.slow
@hypothesis.given(name=st.sampled_from(sorted(rules.legal_rules())))
@hypothesis.settings(max_examples=40, deadline=None)
def test_every_rule_round_trips(name):
    rule = rules.legal_rules()[name]
    assert miras.from_dict(miras.Rule, miras.to_dict(rule)) == rule


def test_hash_is_the_same_in_another_process_and_sees_every_field():
    code = "import miras; print(miras.config_hash(miras.preset('yaad')))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = miras.config_hash(miras.preset("yaad"))
    assert out.stdout.strip() == mine
    assert miras.config_hash(miras.override(miras.preset("yaad"), "bias.delta=5.1")) != mine


def test_difference_names_paths():
    old = miras.preset("yaad")
    new = miras.override(old, "width=64", "bias=l2")
    lines = difference(old, new)
    assert "width: 128 -> 64" in lines
    assert "rule.bias.kind: huber -> l2" in lines
    assert "rule.bias.delta: 5.0 -> (absent)" in lines


def test_from_dict_refuses_unknown_keys():
    with pytest.raises(miras.ConfigError, match="unknown field of Rule 'memry'"):
        miras.from_dict(miras.Rule, {"memry": "mlp"})


def test_types_are_exact_and_numpy_numbers_welcome():
    with pytest.raises(miras.ConfigError, match=r"KL.axis=1.0 is not one of 0, 1"):
        miras.retention.KL(axis=1.0)
    with pytest.raises(miras.ConfigError, match="unknown memory"):
        miras.Rule(memory={"kind": ["mlp"]})
    with pytest.raises(miras.ConfigError, match="is not a mapping"):
        miras.from_json(miras.Rule, "[]")
    assert miras.memory.MLP(depth=np.int64(3)).depth == 3
    assert type(miras.bias.Huber(delta=np.float32(0.5)).delta) is float


def test_unknown_preset():
    with pytest.raises(
        miras.ConfigError, match=r"unknown preset 'yad': did you mean 'yaad'.* see `miras presets`"
    ):
        miras.preset("yad")


def test_a_name_is_registered_once():
    with pytest.raises(miras.ConfigError, match="memory 'mlp' is already registered"):

        @miras.memory.register("mlp")
        @dataclasses.dataclass(frozen=True)
        class Another(Memory):
            pass


def test_a_field_without_effect_is_in_no_hash_and_no_difference():
    config = miras.preset("yaad")
    other = miras.override(config, "backend=reference")
    assert miras.config_hash(other) == miras.config_hash(config)
    assert difference(config, other) == []
    assert miras.to_dict(other)["backend"] == "reference"
