"""Tables and curves of runs: which state each has, how they differ, and what is drawn."""

import contextlib
import fcntl
import json
import socket
import time

import pytest

from miras.analysis.compare.curves import read_runs
from miras.analysis.compare.page import page
from miras.analysis.runs.listing import differences, list_runs
from miras.cli.main import main
from miras.runtime import signals
from miras.train.runs import status


def make(folder, step=4, steps=8, rate=0.1, **state):
    """A run's folder with lines up to a step."""
    folder.mkdir(parents=True)
    config = {"train": {"steps": steps, "learning_rate": rate, "keep": step}, "data": {"batch": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [{"step": 0, "kind": "start", "time": 1000.0}]
    for n in range(1, step + 1):
        loss = 5.0 - n / 10
        lines.append({"step": n, "kind": "train", "loss": loss, "goodput": 0.5, "time": 1000.0 + n,
                      "tokens_per_second": 1e3})  # fmt: skip
    lines.append({"step": step, "kind": "held_out", "bits_per_byte": 2.5, "time": 1010.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "lock").touch()
    if state:
        (folder / "status.json").write_text(json.dumps({"why": "", "time": 1010.0} | state))
    return folder


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("step", "written", "state"),
    [
        (8, {}, "finished"),
        (4, {}, "stale"),
        (8, {"state": "finished"}, "finished"),
        (4, {"state": "preempted", "why": "stopped by SIGTERM"}, "preempted"),
        (8, {"state": "preempted"}, "finished"),
        (4, {"state": "failed"}, "failed"),
        (4, {"state": "running", "host": HERE, "time": time.time() + 1e6}, "stale"),
        (4, {"state": "running", "host": "elsewhere", "time": time.time() + 1e6}, "running"),
        (4, {"state": "running", "host": "elsewhere", "time": time.time() - 1e3}, "stale"),
    ],
)
def test_the_state_of_a_run(tmp_path, step, written, state):
    make(tmp_path / "run", step, **written)
    (run,) = list_runs(tmp_path)
    assert (run.state, run.step, run.steps) == (state, step, 8)
    assert (run.loss, run.bits_per_byte, run.goodput) == (pytest.approx(5 - step / 10), 2.5, 0.5)


def test_a_run_that_holds_its_lock_is_running_and_comes_first(tmp_path):
    make(tmp_path / "a", state="finished", time=5000.0)
    held = make(tmp_path / "b", rate=0.2, state="failed")
    with (held / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        runs = list_runs(tmp_path)
    assert [(run.name, run.state) for run in runs] == [("b", "running"), ("a", "finished")]
    assert [run.differences for run in runs] == [["learning_rate=0.2"], ["learning_rate=0.1"]]
    assert list_runs(held)[0].name == "b"


def test_differences_have_the_shortest_name_that_is_unique():
    first = {"a.seed": 1, "b.seed": 2, "c.width": 3, "train.keep": 1}
    second = {"a.seed": 4, "b.seed": 2, "c.width": 5, "c.new": 1, "train.keep": 2}
    assert differences([first, second]) == [["a.seed=1", "width=3"], ["a.seed=4", "width=5"]]


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (None, "finished", ""),
        (signals.Interrupted(15, " after step 3"), "preempted", "SIGTERM after step 3"),
        (RuntimeError("step 7 is\nnot finite"), "failed", "RuntimeError: step 7 is not finite"),
    ],
)
def test_the_end_of_a_run_is_recorded(tmp_path, error, state, why):
    with contextlib.suppress(signals.Interrupted, RuntimeError), status.recorded(tmp_path):
        assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"
        if error is not None:
            raise error
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["state"] == state
    assert why in found["why"]


def test_a_heartbeat_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "HEARTBEAT", 0.02)
    with status.recorded(tmp_path):
        first = json.loads((tmp_path / "status.json").read_text())["time"]
        end = time.monotonic() + 10
        while json.loads((tmp_path / "status.json").read_text())["time"] == first:
            assert time.monotonic() < end


def test_the_commands_print_and_draw(tmp_path, capsys, monkeypatch):
    make(tmp_path / "x" / "a", state="finished")
    make(tmp_path / "x" / "<b>", rate=0.2)
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "x", "--markdown"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 4
    assert "learning_rate=0.1" in "".join(rows)
    assert main(["runs", "x", "--json"]) == 0
    names = {json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()}
    assert names == {"a", "<b>"}
    assert main(["compare", "x/a", "x/<b>"]) == 0
    assert "written: compared.png, compared.html" in capsys.readouterr().out
    assert (tmp_path / "compared.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "compared.html").read_text()
    assert "<b>" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_curves_have_their_tokens_hours_and_names(tmp_path):
    folders = [make(tmp_path / name / "run") for name in "ab"]
    first, second = read_runs(folders)
    assert (first.name, second.name) == ("a/run", "b/run")
    assert first.curve("train", "loss")[0] == (1, 4.9, 1 / 3600)
    assert first.tokens_per_step == 2
    assert "held-out bits per byte" in page([first, second])


def test_what_is_no_run_is_an_error(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    assert "has no run (config.json)" in refused("compare", tmp_path / "empty")
    assert "is not a folder" in refused("runs", tmp_path / "none")
