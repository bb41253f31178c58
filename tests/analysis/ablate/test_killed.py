"""A grid killed in the middle: no process outlives it, and the same command ends what is left."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from miras.train.checkpoints.checkpointer import saved_steps

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

MINE = """
import dataclasses
from miras.bias.base import register
from miras.bias.l2 import L2

@register("mine")
@dataclasses.dataclass(frozen=True)
class Mine(L2):
    pass
"""
SMALL = (
    "rule.memory=matrix", "retention=none", "optim=gd", "width=16", "layers=1", "heads=2",
    "chunk=8", "remat=false", "sequence=32", "batch=2", "validation=0.3", "steps=60",
    "checkpoint_every=5", "eval_every=60", "eval_batches=2", "log_every=60",
)  # fmt: skip


def workers(out):
    """Processes that train in a grid's folder."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "miras.analysis.ablate.worker" in words and any(
            word.startswith(str(out)) for word in words
        ):
            found.append(int(process.name))
    return found


def until(reached, seconds):
    limit = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="only Linux lists processes so")
def test_a_killed_grid_goes_on(tmp_path, python, monkeypatch):
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    text, out, plugin = tmp_path / "text", tmp_path / "out", tmp_path / "mine.py"
    text.mkdir()
    for n in range(30):
        (text / f"{n:02}.txt").write_text(f"{n} times {n} is {n * n}. " * (5 + n))
    plugin.write_text(MINE)
    argv = ["ablate", "yaad", "bias=l2,mine", *SMALL, "--data", str(text)]
    argv += ["--out", str(out), "--seeds", "1", "--jobs", "2"]
    command = ["-m", "miras", *argv, "--plugin", str(plugin)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, cwd=tmp_path)

    def halfway():
        assert process.poll() is None, (tmp_path / "log").read_text()
        folders = list((out / "runs").glob("*"))
        return len(folders) == 2 and any(
            max(saved_steps(folder / "checkpoints"), default=0) >= 5 for folder in folders
        )

    try:
        until(halfway, 120)
        assert len(workers(out)) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    until(lambda: not workers(out), 30)

    again = [*python, *command[: command.index("--plugin")]]  # the folder remembers the plugin
    done = subprocess.run(again, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(line["cell"], line["status"]) for line in lines] == [
        ("bias=l2", "done"), ("bias=mine", "done"),
    ]  # fmt: skip
    assert any(line["resumed_from"] for line in lines)
    assert all(line["tokens_per_second"] > 0 for line in lines)
    assert "| tokens/s |" in (out / "table.md").read_text()
    # The user's bias is l2 under another name.
    assert lines[0]["bits_per_byte"] == pytest.approx(lines[1]["bits_per_byte"], abs=1e-4)

    plugin.write_text(MINE + "# another text\n")
    refused = subprocess.run([*python, *command], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 2
    assert "not the plugin" in refused.stderr
