"""Processes: how many at once, what becomes of those that fail, and what is not done twice."""

import os
import time

import pytest

from miras.analysis.ablate import ablate, processes
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.jobs import RunObserver, train_all
from miras.analysis.ablate.processes import LocalProcesses, RunWork
from miras.analysis.ablate.worker_log import WorkerLog
from miras.errors import ConfigError

pytestmark = pytest.mark.multiprocess


def train(grid, path, count=2, **more):
    folder = GridFolder(path)
    with folder.opened(grid):
        return train_all(grid, folder, LocalProcesses(folder, count), **more)


def starts(path):
    """When each run was started, by folder."""
    return {
        folder.name: (folder / "starts").read_text().splitlines()
        for folder in (path / "runs").iterdir()
    }


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_run_is_trained_once(fake, make, tmp_path):
    grid, out = make("bias=dot,l2"), tmp_path / "out"
    saved = []
    outcomes = train(grid, out, save=lambda found: saved.append(len(found)))
    assert list(outcomes) == list(grid.runs)
    assert [outcome.bits_per_byte for outcome in outcomes.values()] == [2.5, 2.0, 2.625, 2.125]
    assert saved == [0, 1, 2, 3, 4]
    before = starts(out)
    assert train(grid, out) == outcomes
    assert starts(out) == before
    assert not (out / "compiled").exists()


def test_so_many_at_once(fake, make, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.3")
    monkeypatch.setattr(processes, "cores", lambda: 7)
    most = 0

    class Count(RunObserver):
        def __init__(self):
            self.now = self.most = 0

        def started(self, run, place):
            self.now += 1
            self.most = max(self.most, self.now)

        def ended(self, run, outcome):
            self.now -= 1

    for count, threads in ((1, "7"), (3, "2")):
        observer = Count()
        train(make("bias=dot,l2"), tmp_path / str(count), count, observer=observer)
        most = max(most, observer.most)
        assert observer.most == count
        used = {
            line.split()[1] for lines in starts(tmp_path / str(count)).values() for line in lines
        }
        assert used == {threads}


def test_a_run_that_fails_is_told_of_and_the_others_go_on(fake, make, tmp_path, monkeypatch):
    grid = make("bias=dot,l2,lp,huber,robust", seeds=1)
    trouble = "dot:diverged l2:refused lp:killed huber:crashed"
    monkeypatch.setenv("FAKE_TROUBLE", trouble)
    found = [(o.status, o.reason) for o in train(grid, tmp_path / "out").values()]
    assert found == [
        ("diverged", "step 1 is not finite"),
        ("failed", "there is no such text."),
        ("failed", "process was killed by signal 9: working"),
        ("failed", "process ended with code 1: RuntimeError: out of memory"),
        ("done", None),
    ]
    monkeypatch.delenv("FAKE_TROUBLE")
    again = train(grid, tmp_path / "out")
    # What diverged would do so again, and is not tried again.
    assert [o.status for o in again.values()] == ["diverged", "done", "done", "done", "done"]
    tries = {name.split("-")[0]: len(lines) for name, lines in starts(tmp_path / "out").items()}
    assert tries == {"dot": 1, "l2": 2, "lp": 2, "huber": 2, "robust": 1}


def test_an_interrupt_leaves_no_process_behind(fake, make, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "60")
    seen = []

    class Interrupt(RunObserver):
        def started(self, run, place):
            if len(seen) == 2:
                raise KeyboardInterrupt

    start = processes.start
    monkeypatch.setattr(processes, "start", lambda *args: seen.append(start(*args)) or seen[-1])
    grid = make("bias=dot,l2")
    with pytest.raises(KeyboardInterrupt):
        train(grid, tmp_path / "out", observer=Interrupt())
    assert [process.poll() for process in seen] == [-9, -9]
    monkeypatch.setenv("FAKE_SECONDS", "0")
    assert [o.status for o in train(grid, tmp_path / "out").values()] == ["done"] * 4


def test_the_real_worker_ends_with_what_started_it(make, tmp_path):
    folder, grid = GridFolder(tmp_path), make("bias=l2,lp", seeds=1)
    folder.logs.mkdir()
    work = RunWork.of(grid.runs[0])
    log = WorkerLog(work.log(folder))
    process = processes.start(work, folder, processes.environment(None, 1, False), log)
    process.stdin.close()  # as the operating system does once this process is killed
    limit = time.monotonic() + 60
    while alive(process.pid) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    assert process.poll() == 143
    assert not (folder.runs / grid.runs[0].slug).exists()


def test_the_report_lies_in_the_folder(fake, make, tmp_path, capsys):
    results = ablate(make("bias=dot,l2"), tmp_path / "out", jobs=1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "effects.csv", "grid.json", "lock", "logs", "plot.png", "results.jsonl", "runs",
        "table.csv", "table.md",
    }  # fmt: skip
    assert results.rows[0].cell.name == "bias=l2"
    told = capsys.readouterr().out
    assert "4/4  bias=l2, seed 1: 2.1250 bits per byte" in told
    assert "-0.5000 ± 0.0000" in told  # to the first cell, as none is yaad


def test_folders_that_are_not_this_grid(fake, make, tmp_path):
    ablate(make("bias=dot,l2"), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for grid, words in (
        (make("bias=dot,lp"), "bias: dot,l2 -> dot,lp"),
        (make("bias=dot,l2", seeds=3), "seeds: 2 -> 3"),
        (make("bias=dot,l2", "width=64"), r"width: \(absent\) -> 64"),
        (make("bias=dot", "chunk=16,8"), r"bias: dot,l2 -> dot; chunk: \(absent\) -> 16,8"),
    ):
        with pytest.raises(ConfigError, match=words):
            ablate(grid, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    with (
        GridFolder(tmp_path / "out").opened(make("bias=dot,l2")),
        pytest.raises(ConfigError, match=f"process {os.getpid()}"),
    ):
        ablate(make("bias=dot,l2"), tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not empty and holds no grid"):
        ablate(make("bias=dot,l2"), tmp_path / "other")
    with pytest.raises(ConfigError, match="is a file"):
        ablate(make("bias=dot,l2"), tmp_path / "other" / "thesis.tex")
    with pytest.raises(ConfigError, match="jobs=0"):
        ablate(make("bias=dot,l2"), tmp_path / "new", jobs=0)
    assert not (tmp_path / "new").exists()
    (tmp_path / "out" / "grid.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        ablate(make("bias=dot,l2"), tmp_path / "out")


def test_another_text_in_the_same_place_is_shown(fake, make, tmp_path):
    ablate(make("bias=dot,l2"), tmp_path / "out")
    other = make("bias=dot,l2")
    config = other.cells[0].config
    object.__setattr__(config.data, "source", "elsewhere")
    with pytest.raises(ConfigError, match=r"data\.source: stdlib -> elsewhere"):
        ablate(other, tmp_path / "out")
