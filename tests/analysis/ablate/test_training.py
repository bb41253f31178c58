"""Grids whose cells really train: at several rates, and at equal budgets."""

import csv
import json

import pytest

from miras.analysis.ablate import processes, worker
from miras.analysis.ablate.executor import Ended, Executor, Started
from miras.analysis.ablate.outcome import read_outcome
from miras.analysis.ablate.processes import RunWork
from miras.cli.main import main
from miras.config import to_json

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]
SMALL = (
    "retention=none", "optim=gd", "layers=1", "heads=2", "chunk=8", "remat=false", "sequence=32",
    "validation=0.3", "eval_batches=2", "log_every=1",
)  # fmt: skip


class InThisProcess(Executor):
    """Runs the real worker in this process, which has JAX already."""

    def __init__(self, folder, jobs):
        self._folder, self._events = folder, []

    def accepts(self):
        return True

    def submit(self, run):
        folder = self._folder.runs / run.slug
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "_first_line", lambda: to_json(run.config, indent=None))
            patch.setattr(worker, "_exit_with_parent", lambda: None)
            assert worker.main(str(folder)) == 0
        outcome = read_outcome(folder, RunWork.of(run).config_hash)
        assert outcome is not None
        self._events += [Started(run, ""), Ended(run, outcome)]

    def poll(self):
        found, self._events = self._events, []
        return found

    def terminate(self):
        pass

    def __exit__(self, *_):
        pass


@pytest.fixture
def ablated(sea, tmp_path, monkeypatch):
    """Trains a grid of the command line under one seed; its results, and the folder."""
    monkeypatch.setattr(processes, "LocalProcesses", InThisProcess)

    def run(*words):
        argv = ["ablate", "yaad", *SMALL, *words, "--data", str(sea), "--seeds", "1"]
        assert main([*argv, "--out", str(tmp_path / "out")]) == 0
        lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], tmp_path / "out"

    return run


def trained(folder, line):
    """The config and the log of a run."""
    run = folder / line["folder"]
    steps = [json.loads(found) for found in (run / "metrics.jsonl").read_text().splitlines()]
    return json.loads((run / "config.json").read_text()), steps


def test_a_sweep_trains_each_cell_at_each_rate_and_reports_the_best(ablated, capsys):
    rates = "train.learning_rate=1e-6,1e-2"
    sizes = ("memory=matrix", "width=16", "batch=2", "steps=6", "schedule=constant", "warmup=0")
    (slow, fast), folder = ablated(*sizes, "--sweep", rates)
    for line, rate in ((slow, 1e-6), (fast, 1e-2)):
        config, steps = trained(folder, line)
        assert config["train"]["learning_rate"] == rate
        logged = [found["learning_rate"] for found in steps if found["kind"] == "train"]
        assert logged == pytest.approx([rate] * 6)
        assert max(found["step"] for found in steps) == 6
    # At the small rate nothing is learned in six steps.
    assert fast["bits_per_byte"] < slow["bits_per_byte"] - 0.1
    table = list(csv.DictReader((folder / "rates.csv").open()))
    assert [(row["train.learning_rate_given"], row["best"]) for row in table] == [
        ("1e-6", "0"), ("1e-2", "1"),
    ]  # fmt: skip
    (cell,) = csv.DictReader((folder / "table.csv").open())
    assert float(cell["bits_per_byte"]) == fast["bits_per_byte"]
    assert "best train.learning_rate" in capsys.readouterr().out


@pytest.mark.exhaustive
def test_a_budget_of_parameters_is_that_of_the_trained_models(ablated):
    sizes = ("memory=mlp,matrix", "width=32", "batch=2", "steps=2")
    (base, matrix), folder = ablated(*sizes, "--budget", "params")
    assert matrix["parameters"] == pytest.approx(base["parameters"], rel=0.02)
    models = [trained(folder, line)[0]["model"] for line in (base, matrix)]
    assert models[0]["mlp_ratio"] < models[1]["mlp_ratio"]  # a matrix memory is the smaller one
    table = {row["cell"]: row for row in csv.DictReader((folder / "table.csv").open())}
    for line in (base, matrix):
        assert int(table[line["cell"]]["parameters"]) == line["parameters"]
    assert "changed to match" in (folder / "table.md").read_text()


@pytest.mark.exhaustive
def test_a_budget_of_tokens_sets_the_steps_that_are_taken(ablated):
    sizes = ("memory=matrix", "width=16", "batch=4,8", "steps=2")
    (small, large), folder = ablated(*sizes, "--budget", "tokens")
    for line, steps, batch in ((small, 4, 4), (large, 2, 8)):
        config, found = trained(folder, line)
        assert config["data"]["batch"] == batch
        assert max(one["step"] for one in found) == line["steps"] == steps
