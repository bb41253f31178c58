"""A run's own speed beside its prediction."""

import json

import pytest

from miras.analysis.plan.measured import measured
from miras.cli.main import main
from miras.config import to_dict
from miras.errors import ConfigError
from tests.analysis.plan.jobs import job

WORDS = ("layers=2", "width=64", "heads=4", "vocab=512", "chunk=16", "sequence=64", "data.batch=2")


@pytest.fixture
def run(tmp_path):
    """The folder of a run that has logged five intervals and an evaluation."""
    (tmp_path / "config.json").write_text(json.dumps(to_dict(job("yaad", *WORDS).config)))
    lines = [{"tokens_per_second": speed} for speed in (1, 2, 1000, 1280, 1500)]
    text = "\n".join(json.dumps(line) for line in [*lines, {"loss": 1.0}])
    (tmp_path / "metrics.jsonl").write_text(f"{text}\n{{")
    return tmp_path


def test_the_median_of_the_later_half(run):
    found = measured(run)
    assert (found.tokens_per_second, found.intervals) == (1280, 3)
    assert found.step(128) == 0.1


def test_the_factor_is_printed(run, capsys):
    argv = ["plan", "--measured", str(run), "--on", "v5e-1", "--no-compile"]
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert "measured: 100 ms a step (1,280 tokens/s, median of 3 intervals)" in told
    assert "measured / predicted:" in told


def test_a_run_without_a_speed(run):
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match="has logged no speed"):
        measured(run)
