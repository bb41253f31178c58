"""A grid on a Ray cluster of two local nodes."""

import os

import pytest

pytest.importorskip("ray")

from miras.analysis.ablate import ablate, processes
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.jobs import train_all
from miras.analysis.ablate.processes import LocalProcesses
from miras.analysis.ablate.ray_cluster import RayOptions, connected, parse_resources, places
from miras.cli.main import main
from miras.errors import ConfigError
from miras.runtime import signals
from tests.analysis.ablate.ray_nodes import STEPS, Nodes, Places, train, until, writers

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

SMALL = (
    "rule.memory=matrix", "retention=none", "optim=gd", "width=16", "layers=1", "heads=2",
    "chunk=8", "remat=false", "sequence=32", "validation=0.3", "steps=3", "eval_batches=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def nodes():
    with Nodes.started() as found:
        yield found


@pytest.fixture(scope="class")
def joined(nodes):
    """The cluster; one connection serves all tests, whose tasks then reuse Ray's processes."""
    with connected(RayOptions(nodes.address)):
        yield nodes


def starts(path):
    """How often each run was started, by folder."""
    return {
        folder.name: len((folder / "starts").read_text().splitlines())
        for folder in (path / "runs").iterdir()
    }


@pytest.mark.slow
@pytest.mark.multiprocess
class TestCluster:
    def test_each_run_is_trained_once_as_on_this_machine(self, joined, fake, make, tmp_path):
        grid, seen = make("bias=dot,l2"), Places()
        outcomes = train(grid, tmp_path / "ray", joined, seen)
        assert list(outcomes) == list(grid.runs)
        folder = GridFolder(tmp_path / "here")
        with folder.opened(grid):
            assert outcomes == train_all(grid, folder, LocalProcesses(folder, 2))
        assert set(starts(tmp_path / "ray").values()) == {1}
        assert train(grid, tmp_path / "ray", joined) == outcomes
        assert set(starts(tmp_path / "ray").values()) == {1}

    def test_what_failed_is_tried_again_and_what_diverged_is_not(
        self, joined, fake, make, tmp_path, monkeypatch
    ):
        grid, out, worker = make("bias=dot,l2,lp", seeds=1), tmp_path / "out", processes.WORKER
        trouble = "import os, runpy, sys; os.environ['FAKE_TROUBLE'] = 'dot:diverged l2:killed'; "
        trouble += f"runpy.run_path({worker[-1]!r})"
        monkeypatch.setattr(processes, "WORKER", ("-u", "-c", trouble))
        found = [outcome.status for outcome in train(grid, out, joined).values()]
        assert found == ["diverged", "failed", "done"]
        monkeypatch.setattr(processes, "WORKER", worker)
        again = [outcome.status for outcome in train(grid, out, joined).values()]
        assert again == ["diverged", "done", "done"]
        assert sorted(starts(out).values()) == [1, 1, 2]

    def test_a_signal_stops_all_nodes_and_the_same_command_resumes(
        self, joined, make, tmp_path, monkeypatch
    ):
        def stop(run):
            if len(seen.of) == 2:
                until(lambda: len(list(out.glob("runs/*/written"))) == 2)
                signals._receive(15, None)

        monkeypatch.setattr(processes, "WORKER", ("-u", "-c", STEPS))
        grid, out, seen = make("bias=dot,l2"), tmp_path / "out", Places(stop)
        with pytest.raises(signals.Interrupted, match="0 of 4 runs are done, and the same"):
            train(grid, out, joined, seen)
        assert len(list(out.glob("runs/*/saved"))) == 2
        (out / "go").touch()
        found = train(grid, out, joined).values()
        assert [outcome.status for outcome in found] == ["done"] * 4
        assert sorted(len(writers(run)) for run in out.glob("runs/*")) == [1, 1, 2, 2]

    def test_the_command(self, joined, fake, sea, tmp_path, capsys, own_cache):
        """The mesh is over the devices of a node, of which this machine knows nothing."""
        out = tmp_path / "out"
        argv = ["ablate", "yaad", "bias=dot,l2", *SMALL, "mesh.fsdp=64", "batch=64", "--seeds", "1"]
        argv += ["--data", str(sea), "--out", str(out), "--ray", joined.address]
        assert main([*argv, "--resources", "host:1"]) == 0
        told = capsys.readouterr().out
        assert "2/2  bias=" in told
        assert f" s on {os.uname().nodename} (node " in told
        assert set(starts(out).values()) == {1}

    def test_a_cluster_that_cannot_run_a_cell(self, joined, make, tmp_path, monkeypatch):
        for resources, words in (
            (
                {"TPU": 4},
                "has CPU:1, TPU:4 for a cell: it has 2 nodes with CPU:1, host:1; 1 node with n",
            ),
            (
                {"host": 2},
                "has CPU:1, host:2 for .*; change --cpus, --gpus or --resources, or add a node",
            ),
        ):
            options = RayOptions(joined.address, resources=resources)
            with pytest.raises(ConfigError, match=words):
                ablate(make("bias=dot,l2"), tmp_path / "out", ray=options)
        assert not (tmp_path / "out").exists()
        monkeypatch.setattr("miras.analysis.ablate.ray_tasks.code_version", lambda: "miras 0")
        with pytest.raises(
            ConfigError, match=r"has miras \S+ \(source .*, and this machine miras 0"
        ):
            train(make("bias=dot,l2"), tmp_path / "out", joined)

    def test_the_run_of_a_lost_node_resumes_on_another(self, joined, make, tmp_path, monkeypatch):
        """The worker outlives its node, and keeps the folder. Last, since one node is left."""

        def lose(run):
            if len(seen.of[run]) == 1:
                until(lambda: writers(folder))
                (worker,) = writers(folder)
                with joined.losing(worker):
                    waiting = out / "logs" / f"{run.slug}.log"
                    until(lambda: "is in use by" in waiting.read_text())
                    assert list(writers(folder)) == [worker]
                (out / "go").touch()

        monkeypatch.setattr(processes, "WORKER", ("-u", "-c", STEPS))
        grid, out, seen = make("bias=dot", seeds=1), tmp_path / "out", Places(lose)
        (run,) = grid.runs
        folder = out / "runs" / run.slug
        (outcome,) = train(grid, out, joined, seen).values()
        assert outcome.status == "done"
        first, second = writers(folder).values()
        assert first + second == list(range(len(first + second)))
        assert len(set(seen.of[run])) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cpus", "2"], "--cpus is for a Ray cluster: give its address with --ray"),
        (["--ray", "auto", "--jobs", "2"], "leave out --jobs"),
        (["--ray", "local"], "--ray 'local' is not the address of a cluster"),
        (["--ray", "127.0.0.1:9"], "--ray 127.0.0.1:9 cannot be reached"),
        (["--ray", "auto", "--cpus", "1.5"], "--cpus 1.5 must be above 0, and whole from 1 on"),
        (["--ray", "auto", "--gpus", "-1"], "--gpus -1 must be above 0"),
        (["--ray", "auto", "--resources", "TPU"], "NAME:AMOUNT[,NAME:AMOUNT...] with each name"),
        (["--ray", "auto", "--resources", "GPU:1"], "give its amount with --gpus"),
        (["--ray", "auto", "--out", "http://host/grid"], "has the unknown scheme 'http': give gs:"),
    ],
)
def test_the_sentences_of_errors(words, told, refused, sea, own_cache, tmp_path):
    argv = ["ablate", "yaad", "bias=l2", *SMALL, "--data", sea, "--out", tmp_path / "out"]
    assert told in refused(*argv, *words)
    assert not (tmp_path / "out").exists()


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'miras-jax\[ray\]'"):
        RayOptions()


def test_resources_have_names_with_colons():
    assert parse_resources("a:1, accelerator_type:T4:0.5") == {"a": 1, "accelerator_type:T4": 0.5}
    with pytest.raises(ConfigError, match="each name once"):
        parse_resources("a:1,a:1")


def test_the_cells_that_fit_on_a_node():
    options = RayOptions(cpus=2, resources={"host": 0.5})
    assert places({"Resources": {"CPU": 7, "host": 1}}, options) == 2
    assert places({"Resources": {"CPU": 7}}, options) == 0
