"""Grids on a Ray cluster that loses a node end as grids that were not disturbed."""

import itertools
import json
import os

import pytest

pytest.importorskip("ray")

from miras.analysis.ablate import ablate, processes
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.jobs import train_all
from miras.analysis.ablate.outcome import read_outcome
from miras.analysis.ablate.processes import LocalProcesses
from miras.analysis.ablate.ray_cluster import RayOptions
from miras.cli.main import main
from miras.config import config_hash
from miras.train.checkpoints.checkpointer import saved_steps
from tests.analysis.ablate.ray_nodes import STEPS, Nodes, Places, train, until, writers

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.exhaustive,
    pytest.mark.multiprocess,
]
SMALL = (
    "rule.memory=matrix", "retention=none", "optim=gd", "width=16", "layers=1", "heads=2",
    "chunk=8", "remat=false", "sequence=32", "batch=2", "validation=0.3", "eval_batches=2",
)  # fmt: skip

# The real worker; a lost one is replaced after three seconds.
REAL = """
import sys
from miras.train.runs import lease
lease.HEARTBEAT, lease.EXPIRY = 0.3, 3.0
from miras.analysis.ablate import worker
worker._PAUSE = 0.5
sys.exit(worker.main(sys.argv[1]))
"""


class Ends(Places):
    """Lets the runs of a folder end; collects their ends, and calls a function after each."""

    def __init__(self, folder, then=lambda ends: None):
        super().__init__(lambda run: (folder / "go").touch())
        self.ends, self._after = [], then

    def ended(self, run, outcome):
        self.ends.append(run)
        self._after(len(self.ends))


def test_24_cells_end_once(make, tmp_path, monkeypatch):
    def lose(ends):
        if ends == 10:
            go.unlink()  # so that no run ends
            until(stuck)
            nodes.kill(stuck())
            go.touch()

    def stuck():
        """A process that would have ended its run but for `go`."""
        for folder in out.glob("runs/*"):
            for worker, steps in writers(folder).items():
                if len(steps) > 7 and os.path.exists(f"/proc/{worker}"):
                    return worker
        return None

    monkeypatch.setattr(processes, "WORKER", ("-u", "-c", STEPS))
    grid = make("bias=l2,huber,lp,dot", "chunk=8,16,32", "optim=gd,momentum", seeds=1)
    assert len(grid.cells) == len(grid.runs) == 24
    out, here = tmp_path / "ray", GridFolder(tmp_path / "here")
    go, seen = out / "go", Ends(out, lose)
    with Nodes.started() as nodes:
        train(grid, out, nodes, seen)
        ablate(grid, out, ray=RayOptions(nodes.address))  # only the report
    assert sorted(seen.ends, key=grid.runs.index) == list(grid.runs)
    found = [writers(folder) for folder in out.glob("runs/*")]
    assert sorted(len(of) for of in found) == [1] * 23 + [2]
    for of in found:
        steps = list(itertools.chain(*of.values()))
        assert steps == list(range(len(steps)))

    with here.opened(grid):
        train_all(grid, here, LocalProcesses(here, 2), Ends(here.path))
    ablate(grid, here.path)  # only the report
    for name in ("results.jsonl", "table.csv", "table.md", "effects.csv"):
        assert (out / name).read_text() == (here.path / name).read_text()


def test_training_resumes_on_another_node(make, sea, tmp_path, monkeypatch, own_cache):
    """To the last bit, from a checkpoint."""

    def lose(run):
        if len(seen.of[run]) == 1:
            folder = out / "runs" / run.slug
            until(lambda: max(saved_steps(folder / "checkpoints"), default=0) >= 5, 120)
            lease = max((folder / "writer").glob("*.json"))
            nodes.kill(json.loads(lease.read_text())["process"])

    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    monkeypatch.setattr(processes, "WORKER", ("-u", "-c", REAL))
    steps = ("steps=200", "checkpoint_every=5", "eval_every=200", "log_every=1")
    grid = make("bias=l2", *SMALL, *steps, "vocab=257", f"data.source={sea}", seeds=1)
    (run,) = grid.runs
    out, seen = tmp_path / "ray", Places(lose)
    with Nodes.started() as nodes:
        outcome = train(grid, out, nodes, seen)[run]
    assert outcome.status == "done"
    assert outcome.resumed_from in range(5, 200)
    assert len(set(seen.of[run])) == 2
    ablate(grid, tmp_path / "here", jobs=1)
    undisturbed = read_outcome(tmp_path / "here" / "runs" / run.slug, config_hash(run.config))
    assert undisturbed is not None
    assert undisturbed.resumed_from is None
    assert outcome.scores == undisturbed.scores


def test_the_command_trains_a_model(sea, tmp_path, capsys, own_cache, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    argv = ["ablate", "yaad", "bias=l2", *SMALL, "steps=3", "--data", str(sea), "--seeds", "1"]
    with Nodes.started() as nodes:
        argv += ["--out", str(tmp_path), "--ray", nodes.address, "--resources", "host:1"]
        assert main(argv) == 0
    assert f" s on {os.uname().nodename} (node " in capsys.readouterr().out
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "done"
    (run,) = (tmp_path / "runs").iterdir()
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 3
