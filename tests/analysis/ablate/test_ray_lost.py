"""Grids on a Ray cluster that loses a node end as grids that were not disturbed."""

import itertools
import os

import pytest

pytest.importorskip("ray")

from miras.analysis.ablate import ablate, processes
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.jobs import train_all
from miras.analysis.ablate.processes import LocalProcesses
from miras.analysis.ablate.ray_cluster import RayOptions
from tests.analysis.ablate.ray_nodes import STEPS, Nodes, Places, train, until, writers

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.exhaustive,
    pytest.mark.multiprocess,
]


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
