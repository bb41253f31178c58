"""SIGINT and SIGTERM save the step under way; a run that goes on ends as one never stopped."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from miras.cli.main import main
from miras.config import to_dict
from miras.runtime import signals
from miras.train import program, train, trainer
from miras.train.checkpoints import checkpointer as checkpoint
from miras.train.loggers.jsonl import read_metrics


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    """A finished run that saved only its first and last step: (result, folder)."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    return train(tiny(checkpoint_every=100), out), out


def strike(monkeypatch, number, at):
    """Send this process a signal while step `at` is under way."""
    compile_step = program.TrainingProgram.compile

    def compile_struck(self):
        step = compile_step(self)

        def struck(state, batches, alive):
            if int(state.step) == at - 1:
                os.kill(os.getpid(), number)
            return step(state, batches, alive)

        return struck

    monkeypatch.setattr(program.TrainingProgram, "compile", compile_struck)


def strike_in_evaluation(monkeypatch, number, at):
    """Send this process a signal in the measurement after step `at`."""
    measure = trainer.Trainer._evaluate

    def struck(self, step, *rest):
        if step == at:
            os.kill(os.getpid(), number)
        measure(self, step, *rest)

    monkeypatch.setattr(trainer.Trainer, "_evaluate", struck)


@pytest.mark.parametrize(
    ("number", "how", "step"),
    [
        (signal.SIGTERM, strike, 3),
        (signal.SIGINT, strike, 8),
        (signal.SIGINT, strike_in_evaluation, 4),
        (signal.SIGTERM, strike_in_evaluation, 8),
    ],
)
def test_a_signal_saves_the_step(
    undisturbed, tiny, tmp_path, monkeypatch, console, number, how, step
):
    config, out = tiny(checkpoint_every=100), tmp_path / "run"
    with monkeypatch.context() as patch:
        how(patch, number, step)
        with pytest.raises(signals.Interrupted, match=f"after step {step} of 8, .* saved") as end:
            train(config, out, console=console)
    assert end.value.code == 128 + number
    assert checkpoint.saved_steps(out / "checkpoints") == [0, step]
    result = train(config, out, console=console)
    assert result.resumed_from == step
    jax.tree.map(np.testing.assert_array_equal, result.state.params, undisturbed[0].state.params)
    lines = [
        sorted(
            (line["step"], line["kind"])
            for line in read_metrics(folder / "metrics.jsonl")
            if line["kind"] != "start"
        )
        for folder in (out, undisturbed[1])
    ]
    assert lines[0] == lines[1]


def test_checkpoints_are_saved_by_the_clock(tiny, tmp_path, console):
    for minutes, steps in ((1e-9, [6, 7, 8]), (None, [0, 8])):
        out = tmp_path / str(minutes)
        train(tiny(checkpoint_every=100, checkpoint_minutes=minutes), out, console=console)
        assert checkpoint.saved_steps(out / "checkpoints") == steps


def words_of(config):
    """A config as words of the command line, on top of yaad."""
    data = to_dict(config)
    recipe = data["train"] | {"optimizer": data["train"]["optimizer"]["kind"]}
    found = [f"train.{k}={v}" for k, v in recipe.items() if v is not None]
    found += [f"data.{k}={v}" for k, v in data["data"].items() if isinstance(v, (int, float, str))]
    rule = ("memory=matrix", "bias=dot", "retention=none", "algorithm=gd")
    return [*rule, "width=16", "layers=1", "heads=2", "chunk=8", "remat=false", *found]


def test_the_command_ends_with_the_signal_and_one_line(tiny, tmp_path, monkeypatch, capsys):
    strike(monkeypatch, signal.SIGTERM, 2)
    out = tmp_path / "run"
    words = words_of(tiny(checkpoint_every=100))
    assert main(["train", "yaad", *words, "--out", str(out)]) == 143
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("miras: stopped by SIGTERM after step 2 of 8, which is saved in")


@pytest.mark.multiprocess
def test_a_grid_lets_its_runs_save_themselves(tiny, tmp_path):
    """SIGINT to `miras ablate`: its worker ends after a saved step, and the command goes on."""
    out = tmp_path / "grid"
    words = words_of(tiny(steps=400, checkpoint_every=1000))
    command = [sys.executable, "-m", "miras", "ablate", "yaad", *words, "--seeds", "1"]
    command += ["--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None

    def steps():
        found = [read_metrics(path) for path in pathlib.Path(out).glob("runs/*/metrics.jsonl")]
        return [line["step"] for lines in found for line in lines]

    while not any(steps()):  # until a step is logged
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "miras: stopped by SIGINT; 0 of 1 runs are done" in said.decode()
    for folder in pathlib.Path(out).glob("runs/*/checkpoints"):
        assert checkpoint.saved_steps(folder)[-1] > 0


@pytest.mark.parametrize("command", ["eval", "eval --task", "generate"])
def test_reading_commands_end_with_the_signal(undisturbed, tmp_path, monkeypatch, capsys, command):
    words = {
        "eval": ["eval"],
        "eval --task": ["eval", "--task", "niah", "--lengths", "384", "--examples", "2"],
        "generate": ["generate", "--session", str(tmp_path / "session"), "--length", "9"],
    }
    check, count = signals.check, 0

    def struck(what=""):
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        check(what)

    monkeypatch.setattr(signals, "check", struck)
    assert main([*words[command][:1], str(undisturbed[1]), *words[command][1:]]) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "miras: stopped by SIGTERM."
    assert (tmp_path / "session").exists() == (command == "generate")
