"""A grid in a bucket on a Ray cluster whose nodes share no disk, and which loses a node."""

import json

import pytest

pytest.importorskip("ray")

from miras.analysis.ablate import ablate, processes, ray_tasks
from miras.analysis.ablate.outcome import read_outcome
from miras.analysis.ablate.ray_cluster import RayOptions
from miras.config import config_hash
from miras.runtime import paths
from tests.analysis.ablate.ray_nodes import Nodes, Places, train, until
from tests.analysis.ablate.test_ray_lost import REAL, SMALL

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.exhaustive,
    pytest.mark.multiprocess,
]
URL = "s3://bucket/grid"


def test_training_resumes_on_another_node(
    make, sea, bucket, tmp_path, monkeypatch, capsys, own_cache
):
    """To the last bit, from a checkpoint in the bucket; each node has a $TMPDIR of its own."""

    def checkpoint():
        """The highest step whose checkpoint is complete in the bucket."""
        found = paths.entries(folder / "checkpoints")
        return max((int(name[:-5]) for name in found if name[:-5].isdigit()), default=0)

    def lose(run):
        if len(seen.of[run]) == 1:
            until(lambda: checkpoint() >= 5, 180)
            lease = max(paths.entries(folder / "writer"))
            nodes.kill(json.loads(paths.read(folder / "writer" / lease))["process"])

    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    monkeypatch.setattr(ray_tasks, "_STORE_PAUSE", 0.5)
    flush = "from miras.train.runs import mirror\nmirror.FLUSH = 0.5\n"
    monkeypatch.setattr(processes, "WORKER", ("-u", "-c", flush + REAL))
    steps = ("steps=200", "checkpoint_every=5", "eval_every=200", "log_every=1")
    grid = make("bias=l2", *SMALL, *steps, "vocab=257", f"data.source={sea}", seeds=1)
    (run,) = grid.runs
    folder, seen = paths.open_path(f"{URL}/runs/{run.slug}"), Places(lose)
    with Nodes.started(tmp_path / "scratch") as nodes:
        outcome = train(grid, URL, nodes, seen)[run]
        assert outcome.status == "done"
        assert outcome.resumed_from in range(5, 200)
        assert len(set(seen.of[run])) == 2
        assert "" not in seen.of[run]
        ablate(grid, URL, ray=RayOptions(nodes.address))  # only the report
    assert "1 of 1 runs are already in s3://bucket/grid" in capsys.readouterr().out
    assert list(paths.entries(folder / "writer")) == ["00000002.json"]
    left = [list(path.glob("miras-run-*")) for path in (tmp_path / "scratch").iterdir()]
    assert sorted(map(len, left)) == [0, 1]  # the copy of the lost node, which the other lacks
    written = paths.entries(paths.open_path(URL))
    assert {"results.jsonl", "table.md", "table.csv", "effects.csv", "plot.png"} <= set(written)
    assert "nodes" not in written
    names = paths.entries(paths.open_path(f"{URL}/logs"))
    assert sorted(names) == [f"{run.slug}.log", f"{run.slug}.node"]
    ablate(grid, tmp_path / "here", jobs=1)
    undisturbed = read_outcome(tmp_path / "here" / "runs" / run.slug, config_hash(run.config))
    assert undisturbed is not None
    assert undisturbed.resumed_from is None
    assert outcome.scores == undisturbed.scores
