"""A grid whose folder is on an object store: a local S3 server."""

import json
import threading

import pytest

from miras.analysis.ablate import ablate, files, grid_plugins, processes, worker
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.jobs import RunObserver, train_all
from miras.analysis.ablate.processes import LocalProcesses
from miras.analysis.ablate.ray_node import CHECK, check_node
from miras.analysis.ablate.results import summarise
from miras.cli.main import main
from miras.config import plugins, to_json
from miras.errors import ConfigError
from miras.runtime import paths
from miras.train.runs import lease, mirror
from miras.train.runs.lease import InUseError, Lease, LeaseLostError

URL = "s3://bucket/grid"

# Holds the lease of its folder as the real worker does; its outcome depends on its name alone.
FAKE = """
import json, os, sys, time
from etils import epath
from miras.runtime import paths
from miras.train.runs.lease import Lease
folder = epath.Path(sys.argv[1])
sys.stdin.readline()
if folder.name.startswith(os.environ.get("FAKE_TROUBLE", "none")):
    sys.exit(print("miras: there is no such text.") or 2)
lease = Lease(folder)
lease.acquire()
paths.write(folder / "metrics.jsonl", json.dumps({"step": 7, "kind": "train"}) + "\\n")
time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
print("worked")
lease.release()
name = folder.name.rsplit("-", 1)[1]
outcome = dict(config_hash=name, status="done", bits_per_byte=2 + int(name[:4], 16) / 2**16,
               steps=2, seconds=0.1, parameters=100)
paths.write(folder / "outcome.json", json.dumps(outcome))
"""


@pytest.fixture
def store(bucket, monkeypatch):
    """The file system of an empty bucket; workers only hold the leases of their folders."""
    monkeypatch.setattr(processes, "WORKER", ("-u", "-c", FAKE))
    return bucket


def names(folder):
    return sorted(paths.entries(paths.open_path(f"s3://bucket/{folder}")))


def writers(store):
    """How many writers each run has had."""
    return {
        name.split("/")[3]: int(name[-13:-5]) for name in store.glob("bucket/*/runs/*/writer/*")
    }


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_grid_is_trained_once_and_reported(store, make, monkeypatch, capsys):
    grid = make("bias=dot,l2", seeds=1)
    monkeypatch.setenv("FAKE_TROUBLE", "dot")
    ablate(grid, URL, jobs=2)
    assert "there is no such text." in store.cat_file("bucket/grid/table.md").decode()
    monkeypatch.delenv("FAKE_TROUBLE")
    ablate(grid, URL, jobs=2)
    told = capsys.readouterr().out
    assert "1 of 2 runs are already in s3://bucket/grid." in told
    assert names("grid") == [
        "effects.csv", "grid.json", "logs", "plot.png", "results.jsonl", "runs", "table.csv",
        "table.md", "writer",
    ]  # fmt: skip
    lines = store.cat_file("bucket/grid/results.jsonl").decode().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["done", "done"]
    assert "no such text" not in store.cat_file("bucket/grid/table.md").decode()
    assert store.cat_file("bucket/grid/plot.png").startswith(b"\x89PNG")
    assert [store.cat_file(name) for name in store.ls("bucket/grid/logs")] == [b"worked\n"] * 2
    ablate(grid, URL, jobs=2)
    assert set(writers(store).values()) == {1}
    with pytest.raises(ConfigError, match=r"s3://bucket/grid holds another grid \(bias: dot,l2 ->"):
        ablate(make("bias=dot,lp", seeds=1), URL)
    store.pipe_file("bucket/letters/one.txt", b"dear")
    with pytest.raises(ConfigError, match=r"^s3://bucket/letters is not empty and holds no grid"):
        ablate(grid, "s3://bucket/letters")
    assert names("letters") == ["one.txt"]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_the_progress_of_runs_is_read(store, make, monkeypatch):
    class Steps(RunObserver):
        def progressed(self, run, step):
            seen.add(step)

    monkeypatch.setattr(mirror, "FLUSH", 0.1)
    monkeypatch.setenv("FAKE_SECONDS", "1")
    seen, grid, folder = set(), make("bias=l2", seeds=1), GridFolder(URL)
    with folder.opened(grid):
        train_all(grid, folder, LocalProcesses(folder, 1), Steps())
    assert 7 in seen


def test_a_second_command_is_refused_while_the_first_one_lives(store, make, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT", 0.1)
    grid = make("bias=dot,l2", seeds=1)
    with GridFolder(URL).opened(grid):
        with pytest.raises(InUseError, match=rf"^{URL} is in use by process \d+ on .*: wait until"):
            ablate(grid, URL)
        assert names("grid") == ["grid.json", "writer"]
    with GridFolder(URL).opened(grid):  # at once: it was released
        assert names("grid/writer") == ["00000002.json"]


def test_a_command_that_lost_the_folder_writes_no_table(store, make, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT", 3600.0)  # the next heartbeat would end this process
    monkeypatch.setattr(lease, "EXPIRY", 0.2)
    grid, folder, other = make("bias=dot,l2", seeds=1), GridFolder(URL), Lease(paths.open_path(URL))
    with folder.opened(grid):
        other.acquire()
        with pytest.raises(LeaseLostError, match=r"s3://bucket/grid was taken over by process"):
            files.write_tables(folder, summarise(grid, {}))
    assert "table.md" not in names("grid")
    other.check()
    other.release()


def test_a_heartbeat_that_finds_the_folder_lost_ends_the_process(store, make, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr("miras.train.runs.disk_lock.end_process", lambda error: ended.set())
    monkeypatch.setattr(lease, "HEARTBEAT", 0.05)
    with GridFolder(URL).opened(make("bias=dot,l2", seeds=1)):
        content = {"token": "other", "host": "elsewhere", "process": 1}
        store.pipe_file("bucket/grid/writer/00000002.json", json.dumps(content).encode())
        assert ended.wait(30)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_store_that_does_not_answer_for_a_moment_ends_no_grid(store, make, monkeypatch, capsys):
    def write(folder, results):
        if len(results.outcomes) == 0:
            raise ConfigError("'s3://bucket/grid' cannot be reached")
        written(folder, results)

    written = files.write_tables
    monkeypatch.setattr(files, "write_tables", write)
    ablate(make("bias=l2,dot", seeds=1), URL, jobs=2)
    assert "warning: the tables are not up to date: 's3://" in capsys.readouterr().out
    assert "results.jsonl" in names("grid")


def test_a_worker_leaves_a_run_that_another_one_has_finished(store, make, monkeypatch):
    """It waits for the writer of the folder, which then ends the run."""

    def train(config, folder, **more):
        tries.append(folder)
        outcome = {"config_hash": run.slug.rsplit("-", 1)[1], "status": "done"}
        store.pipe_file(f"bucket/grid/runs/{run.slug}/outcome.json", json.dumps(outcome).encode())
        raise InUseError("s3://... is in use by process 1 on elsewhere: wait until it ends.")

    (run,), tries = make("bias=l2", seeds=1).runs, []
    monkeypatch.setattr(worker, "_first_line", lambda: to_json(run.config, indent=None))
    monkeypatch.setattr(worker, "_exit_with_parent", lambda: None)
    monkeypatch.setattr(worker, "_PAUSE", 0.0)
    monkeypatch.setattr(worker, "_PATIENCE", 1.0)
    monkeypatch.setattr("miras.train.train", train)
    assert worker.main(f"{URL}/runs/{run.slug}") == 0
    assert tries == [f"{URL}/runs/{run.slug}"]


def test_plugins_travel_in_the_folder(store, make, tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "_files", {})
    monkeypatch.setattr(plugins, "_modules", [])
    plugin = tmp_path / "travels.py"
    plugin.write_text("NUMBER = 1\n")
    plugins.load(plugin)
    with GridFolder(URL).opened(make("bias=dot,l2", seeds=1)):
        assert store.cat_file("bucket/grid/plugins/travels.py") == b"NUMBER = 1\n"
    plugins._files.clear()
    grid_plugins.restore(GridFolder(URL).plugins)
    assert plugins._files["travels"][1] == "NUMBER = 1\n"
    plugins._files["travels"] = (plugin, "NUMBER = 2\n")
    with pytest.raises(ConfigError, match=rf"was started, {URL}/plugins/travels.py: give that"):
        grid_plugins.restore(GridFolder(URL).plugins)


def test_the_runs_of_a_grid_are_listed_and_compared(store, tmp_path, monkeypatch, capsys, refused):
    monkeypatch.chdir(tmp_path)
    store.pipe_file("bucket/grid/grid.json", b"{}")
    assert "is a grid whose runs have no measurements yet" in refused("compare", URL)
    for name, rate in (("one", 0.1), ("two", 0.2)):
        config = {"train": {"steps": 2, "learning_rate": rate}, "data": {}}
        lines = [{"step": n, "kind": "train", "loss": 3.0 - n, "time": n} for n in (1, 2)]
        folder = f"bucket/grid/runs/{name}"
        store.pipe_file(f"{folder}/config.json", json.dumps(config).encode())
        store.pipe_file(f"{folder}/metrics.jsonl", "\n".join(map(json.dumps, lines)).encode())
    store.pipe_file("bucket/grid/runs/waiting/writer/00000001.json", b"{}")
    for argv in (["runs", "--json", URL], ["runs", "--json", f"{URL}/runs"], ["compare", URL]):
        assert main(argv) == 0
        told = capsys.readouterr().out
        assert "one" in told
        assert "two" in told
        assert "learning_rate=0." in told
        assert "waiting" not in told
    assert (tmp_path / "compared.png").read_bytes().startswith(b"\x89PNG")


def test_a_node_says_whether_it_sees_the_bucket(store, monkeypatch):
    store.pipe_file(f"bucket/grid/{CHECK}", b"token\n")
    assert check_node(URL, "token").sees
    monkeypatch.setattr("miras.analysis.ablate.ray_node._VISIBLE", 0.0)
    answer = check_node(URL, "another")
    assert (answer.sees, answer.why) == (False, "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(store).clear_instance_cache()
    answer = check_node(URL, "token")
    assert not answer.sees
    assert "cannot be reached" in answer.why
