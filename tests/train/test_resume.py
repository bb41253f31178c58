"""What may change about a run that goes on, and what is refused; the folder of a config."""

import dataclasses

import pytest

import miras.train
from miras import config_hash, override, to_dict
from miras.cli.main import main
from miras.config import Config
from miras.errors import ConfigError
from miras.train import RunConfig, train
from miras.train.runs.mutable_fields import MUTABLE_FIELDS, resumed_config, short_hash
from miras.train.runs.run_folder import RunFolder
from tests.train.test_loop import assert_same

CHANGED = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 0.5 or 0.5}


def paths(config, prefix=()):
    """The path and value of every number in a config."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Config):
            yield from paths(value, (*prefix, field.name))
        elif type(value) in CHANGED:
            yield (*prefix, field.name), value


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_every_field_may_change_or_is_named(tiny, schedule):
    saved = tiny(f"schedule={schedule}")
    seen = set()
    for path, value in paths(saved):
        name = ".".join(path)
        try:
            given = override(saved, f"{name}={CHANGED[type(value)](value)}".lower())
        except ConfigError:
            continue  # no such config
        free = path[0] == "mesh" or (path[0] == "train" and path[-1] in MUTABLE_FIELDS)
        if free or (path[-1] == "steps" and schedule != "cosine"):
            assert resumed_config(saved, given, 1, "run") == given
            seen.add(path[-1])
            continue
        with pytest.raises(ConfigError, match=rf"{name}: {value} -> ") as told:
            resumed_config(saved, given, 1, "run")
        assert "\n" not in str(told.value)
    assert set(MUTABLE_FIELDS) - {"logger", "profile"} <= seen
    given = override(saved, 'logger=["jsonl"]', "profile=1:2", 'compiler_options={"a": "b"}')
    assert resumed_config(saved, given, 1, "run") == given


@pytest.mark.parametrize(
    ("schedule", "old", "new", "done", "reason"),
    [
        ("constant", 10, 20, 10, None),
        ("constant", 10, 6, 5, None),
        ("constant", 10, 4, 5, "5 steps are already done"),
        ("wsd", 10, 20, 8, None),
        ("wsd", 10, 20, 9, None),  # update 8 is the first of the decay, and still at the peak
        ("wsd", 10, 20, 10, "would have other learning rates"),
        ("wsd", 20, 10, 9, None),
        ("wsd", 20, 10, 10, "would have other learning rates"),
        ("cosine", 10, 20, 1, "determines the whole cosine"),
    ],
)
def test_steps_may_change_where_no_update_made_would(tiny, schedule, old, new, done, reason):
    saved, given = (tiny(f"schedule={schedule}", steps=steps) for steps in (old, new))
    if reason is None:
        assert resumed_config(saved, given, done, "run") == given
    else:
        with pytest.raises(ConfigError, match=rf"train\.steps: {old} -> {new}; .*{reason}"):
            resumed_config(saved, given, done, "run")


def test_a_warm_up_that_is_not_given_stays_the_runs(tiny):
    saved = tiny("schedule=constant", "warmup=none", steps=50)
    longer = resumed_config(saved, tiny("schedule=constant", "warmup=none", steps=2000), 50, "run")
    assert longer.train.warmup == saved.train.warmup_steps == 5
    again = resumed_config(
        longer, tiny("schedule=constant", "warmup=none", steps=2000), 2000, "run"
    )
    assert again == longer
    with pytest.raises(ConfigError, match=r"train\.warmup: None -> 7"):
        resumed_config(saved, tiny("schedule=constant", "warmup=7", steps=50), 50, "run")


def test_a_longer_run_ends_as_if_it_had_been_so_from_the_start(tiny, tmp_path, console):
    first, second = (tiny("schedule=constant", steps=n) for n in (4, 8))
    train(first, tmp_path / "run", console=console)
    second = override(second, "eval_batches=1", "keep=9", "log_every=1")
    result = train(second, tmp_path / "run", console=console)
    assert result.resumed_from == 4
    assert RunFolder(tmp_path / "run").read_config() == second
    assert (tmp_path / "run" / "config_hash").read_text().strip() == config_hash(second)
    assert_same(result.state, train(second, tmp_path / "whole", console=console).state)


def test_a_run_says_what_it_is(tiny, tmp_path, console):
    train(tiny(steps=2, warmup=0), tmp_path / "run", console=console)
    said = console.file.getvalue()
    assert "model: " in said
    assert "matrix memory, dot bias" in said
    assert "parameters: " in said
    assert "tokens: 128 (2 steps of 2 rows of 32)" in said
    assert "device: cpu" in said
    assert f"folder: {tmp_path / 'run'}" in said


def test_a_config_has_a_folder_of_its_own(tiny):
    hashes = {short_hash(tiny(*words)) for words in ([], ["steps=9"], ["bias=l2"], ["data.seed=1"])}
    assert len(hashes) == 4
    assert short_hash(tiny("log_every=1", "keep=1", "checkpoint_minutes=none")) == short_hash(
        tiny()
    )
    assert to_dict(RunConfig(tiny().model))["parent"] is None


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """The (config, folder) that a command would train, in an empty folder."""
    calls = []

    class NoRunError(Exception):
        pass

    def train(config, out, **_):
        calls.append((config, str(out)))
        raise NoRunError

    monkeypatch.setattr(miras.train, "train", train)
    monkeypatch.chdir(tmp_path)

    def plan(*words):
        with pytest.raises(NoRunError):
            main(["train", *words])
        return calls[-1]

    return plan


def test_a_second_experiment_has_another_folder_and_the_same_command_the_same(planned):
    config, out = planned("yaad", "steps=5")
    assert out == f"runs/yaad-{short_hash(config)}"
    assert planned("yaad", "steps=5", "log_every=1")[1] == out
    others = [
        planned(*w)[1] for w in ([], ["yaad"], ["yaad", "bias=l2", "steps=5"], ["atlas", "steps=5"])
    ]
    assert others[0] == others[1]
    assert len({out, *others}) == 4


def test_a_run_of_an_earlier_version_goes_on_in_its_folder(planned):
    config, _ = planned("yaad", "steps=5")
    folder = RunFolder("runs/yaad")
    with folder.locked():
        folder.write_config(config)
    assert planned("yaad", "steps=5")[1] == "runs/yaad"
    assert planned("yaad", "steps=6")[1] != "runs/yaad"
    assert planned("--out", "runs/yaad", "keep=7")[0] == override(config, "keep=7")
    assert planned("--out", "runs/yaad")[0] == config
