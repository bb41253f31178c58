"""Where measurements go, by name; a sink that fails stops nothing."""

import json
import re
import subprocess
import sys
import types

import jax
import pytest

import tests.train.test_run_folder as run_folder
from miras.cli.main import main
from miras.config import plugins
from miras.errors import ConfigError
from miras.train import TrainConfig, train
from miras.train.loggers import registry
from miras.train.loggers.base import LoggerContext, scalars
from miras.train.loggers.jsonl import read_metrics
from miras.train.loggers.loggers import Loggers
from miras.train.loggers.registry import find
from tests.test_docs import ROOT, runnable

VALUES = {"loss": 1.5, "norm": [1.0, 2.0]}


@pytest.fixture
def opening(tmp_path):
    return LoggerContext(tmp_path, {"train": {"steps": 8}}, 6)


class Recorder:
    """A sink that keeps what it is told, and fails on request."""

    fails = ""

    def __init__(self, run):
        self.lines, self.closed = [], False
        if self.fails == "open":
            raise RuntimeError("no\nroom")

    def write(self, step, kind, values):
        if self.fails == "write":
            raise OSError(28, "No space left on device")
        self.lines.append((step, kind, values))

    def close(self):
        if self.fails == "close":
            raise ValueError("too late")
        self.closed = True


@pytest.mark.parametrize("when", ["open", "write", "close"])
def test_a_sink_that_fails_warns_once_and_the_others_go_on(opening, when):
    class Failing(Recorder):
        fails = when

    made, said = [], []
    sound = lambda run: made.append(Recorder(run)) or made[-1]  # noqa: E731
    both = Loggers({"bad": Failing, "good": sound}, opening, said.append)
    for step in (7, 8):
        both.write(step, "train", VALUES)
    both.close()
    assert [line[0] for line in made[0].lines] == [7, 8]
    assert made[0].closed
    (line,) = said
    assert re.match(
        r"warning: logger bad failed \(\w+: .*\); the run continues without it\.$", line
    )


def test_names_are_checked_before_anything_else(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown logger 'wandbb': .*did you mean 'wandb'"):
        TrainConfig(logger=("jsonl", "wandbb"))
    for name, package in (("tensorboard", "tensorboardX"), ("wandb",) * 2, ("trackio",) * 2):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
        with pytest.raises(ConfigError, match=rf"'{name}' needs the package {package}.*pip inst"):
            find((name,))
    assert registry.default() == ("jsonl",)
    with pytest.raises(ConfigError, match="cannot be read"):
        find((f"{tmp_path}/none.py:Logger",))
    (tmp_path / "empty_sink.py").write_text("")
    with pytest.raises(ConfigError, match="has no class Logger"):
        find((f"{tmp_path}/empty_sink.py:Logger",))


def test_only_those_that_are_named_write_and_tensorboard_is_imported_when_used(opening):
    for name, file in (("jsonl", "metrics.jsonl"), ("tensorboard", "tensorboard")):
        one = Loggers(find((name,)), opening, pytest.fail)
        one.write(7, "train", VALUES)
        one.close()
        assert (opening.folder / file).exists()
    (line,) = read_metrics(opening.folder / "metrics.jsonl")
    assert line.pop("time") > 0
    assert line == {"step": 7, "kind": "train", **VALUES}
    events = list(run_folder.read_events(opening.folder / "tensorboard"))
    tags = {value.tag for event in events for value in event.summary.value}
    assert tags == {"train/loss", "train/norm/layer_0", "train/norm/layer_1"}
    assert scalars("health", {"gates": {"lr": [0.5, float("nan")]}, "norm": [float("inf")]}) == {
        "health/gates/lr/layer_0": 0.5
    }
    code = (
        "import sys, miras.train.loop, miras.cli.train\n"
        "print({'tensorboardX', 'wandb', 'trackio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_are_told_numbers_by_name_and_go_on_as_the_same_run(opening, monkeypatch, name):
    """With a module in the tracker's place, whose `init` gives a run."""
    calls = []

    class Run:
        def log(self, values, step=None):
            calls.append((step if step is not None else values.pop("step"), values))

        def define_metric(self, *_, **__):
            pass

        def finish(self):
            calls.append("finished")

    def init(**options):
        calls.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(init=init, __spec__=None))
    for _ in range(2):
        tracker = Loggers(find((name,)), opening, pytest.fail)
        tracker.write(7, "health", VALUES)
        tracker.close()
    started, logged, finished, again, *_ = calls
    assert started == again
    assert started["config"] == {"train": {"steps": 8}}
    assert (started["name"], started["resume"]) == (opening.folder.name, "allow")
    assert logged == (
        7,
        {"health/loss": 1.5, "health/norm/layer_0": 1.0, "health/norm/layer_1": 2.0},
    )
    assert finished == "finished"


def test_a_run_with_a_failing_sink_ends_well_and_its_folder_keeps_the_file(
    tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(plugins, "_files", {})
    file = tmp_path / "failing_sink.py"
    file.write_text(
        "class Failing:\n"
        "    def __init__(self, run):\n        self.run = run\n"
        "    def write(self, step, kind, values):\n        raise RuntimeError('gone')\n"
        "    def close(self):\n        pass\n"
    )
    out = tmp_path / "run"
    train(tiny(steps=2, warmup=0), out)
    argv = ["train", "--out", str(out), "eval_batches=1", "--logger"]
    assert main([*argv, f"jsonl,{file}:Failing", "log_every=1"]) == 0
    assert (out / "plugins" / "failing_sink.py").read_text() == file.read_text()
    kept = json.loads((out / "config.json").read_text())["train"]["logger"]
    assert kept == ["jsonl", "failing_sink.py:Failing"]
    file.unlink()
    assert main(["train", "--out", str(out)]) == 0  # from the folder's copy
    assert main([*argv, "nothing"]) == 2
    assert "unknown logger 'nothing'" in capsys.readouterr().err


def test_processes_other_than_the_first_log_nothing(opening, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    none = Loggers(find(("jsonl", "tensorboard")), opening, pytest.fail)
    none.write(7, "train", VALUES)
    none.close()
    assert list(opening.folder.iterdir()) == []


def test_the_sink_on_the_page_is_one(tmp_path, opening, monkeypatch):
    monkeypatch.setattr(plugins, "_files", {})
    blocks = [code for _, code in runnable(ROOT / "docs" / "training.md") if "class CSV" in code]
    source = re.search(r"<<'EOF'\n(.*?)^EOF", blocks[0], re.MULTILINE | re.DOTALL)
    assert source is not None
    (tmp_path / "csv_logger.py").write_text(source[1])
    own = Loggers(find((f"{tmp_path}/csv_logger.py:CSV",)), opening, pytest.fail)
    own.write(7, "train", VALUES)
    own.write(8, "health", {"norm": [1.0]})
    own.close()
    assert (opening.folder / "loss.csv").read_text() == "7,train,1.5\n"
