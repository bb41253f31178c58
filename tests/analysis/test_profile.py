"""The profile of a run: which steps, own times of nested operations, and what the command says."""

import json

import pytest

from miras.analysis.profile import own_times, read_profile
from miras.cli.main import main
from miras.errors import ConfigError
from miras.train import TrainConfig
from miras.train.profiling import Profile, parse_profile


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("100", "is not of the form FIRST:LAST"),
        ("a:b", "is not of the form FIRST:LAST"),
        ("-1:3", "is not of the form FIRST:LAST"),
        ("0:3", "names steps that the run does not have"),
        ("5:4", "names steps that the run does not have"),
        ("8:11", "1 <= FIRST <= LAST <= 10"),
    ],
)
def test_other_ranges_are_errors(text, why):
    with pytest.raises(ConfigError, match=why):
        TrainConfig(steps=10, profile=text)


def test_both_ends_are_included():
    assert parse_profile("10:10", 10) == (10, 10)


@pytest.mark.parametrize(("start", "first"), [(0, 3), (4, 5), (6, None)])
def test_the_trace_begins_after_the_steps_that_are_done(start, first, tmp_path, monkeypatch):
    began = []
    monkeypatch.setattr("jax.profiler.start_trace", began.append)
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: None)

    class Compiled:
        def as_text(self):
            return ""

    with Profile("3:5", 10, start, tmp_path) as profile:
        for step in range(start + 1, 11):
            profile.before(step, Compiled())
            assert bool(began) == (first is not None and step >= first)
            assert (profile.after(step) is not None) == (step == 5)
            assert profile.bounds(step) == (first is not None and step in (first - 1, 5))


def test_a_loop_does_not_have_the_time_of_the_operations_in_it():
    events = [
        ("loop", 0.0, 100e9),
        ("product", 10e9, 20e9),
        ("inner", 40e9, 30e9),
        ("sum", 45e9, 10e9),
        ("product", 110e9, 5e9),
    ]
    assert sorted(own_times(events)) == [
        ("inner", 20.0), ("loop", 50.0), ("product", 5.0), ("product", 20.0), ("sum", 10.0),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_prints_the_operations_of_a_run(sea, own_cache, tmp_path, capsys):
    out = str(tmp_path / "run")
    words = "linear_attention steps=3 width=8 heads=1 layers=1 sequence=16 batch=2 profile=2:3"
    assert main(["train", *words.split(), "--data", str(sea), "--out", out]) == 0
    assert "steps 2 to 3 are profiled" in capsys.readouterr().out
    found = read_profile(tmp_path / "run")
    assert (found.first, found.last) == (2, 3)
    assert found.seconds == pytest.approx(sum(o.seconds for o in found.operations))
    assert 0 < found.share("of_memory") < 1  # the scan's name is in the compiled step
    assert found.share("is_collective") == 0
    assert max(o.count for o in found.operations) >= 1
    assert main(["profile", out, "--top", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[1].startswith(found.operations[0].name[:12])
    assert f"{1e3 * found.operations[0].seconds:.3f}" in lines[1]
    assert lines[-1].startswith("steps 2 to 3: ")
    kept = json.loads((tmp_path / "run" / "profile" / "operations.json").read_text())
    assert (kept["first"], kept["last"]) == (2, 3)


def test_a_run_without_a_profile_is_an_error(tmp_path, refused):
    assert "has no profile: train it with" in refused("profile", tmp_path)
