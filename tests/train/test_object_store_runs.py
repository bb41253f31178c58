"""Runs whose folder is on an object store: a local S3 server."""

import json
import re
import shutil
import signal

import pytest

from miras.cli.main import main
from miras.errors import ConfigError
from miras.runtime import paths, processes
from miras.runtime.paths import open_path
from miras.train import load_run, train
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.checkpoints.manifest import DamagedError
from miras.train.loggers.jsonl import read_metrics
from miras.train.runs import lease, mirror
from miras.train.runs.initial_parameters import parse_source
from miras.train.runs.lease import Lease, LeaseLostError
from miras.train.runs.mirror import Mirror
from miras.train.runs.run_folder import RunFolder
from miras.train.runs.stored_checkpoints import StoredCheckpoints
from miras.train.trainer import Trainer
from tests.train import processes_run

URL = "s3://bucket/runs/mine"


@pytest.fixture
def store(bucket, monkeypatch):
    """The file system of an empty bucket; threads wait."""
    # No thread renews or uploads on its own, unless a test lets it.
    monkeypatch.setattr(lease, "HEARTBEAT", 3600.0)
    monkeypatch.setattr(lease, "EXPIRY", 3600.0)
    monkeypatch.setattr(mirror, "FLUSH", 3600.0)
    return bucket


def markers(store):
    found = store.ls("bucket/runs/mine/checkpoints", refresh=True)
    return sorted(int(m[1]) for m in (re.search(r"/(\d+)\.json$", name) for name in found) if m)


def test_a_run_trains_resumes_and_is_read(store, tiny, tmp_path, capsys, refused):
    config = tiny(steps=6, schedule="constant", keep=2)
    assert str(train(tiny(steps=4, schedule="constant", keep=2), URL).folder) == URL
    assert markers(store) == [2, 4]
    result = train(config, URL)
    assert result.resumed_from == 4
    assert markers(store) == [4, 6]
    expected = train(config, tmp_path / "run")
    assert result.held_out == expected.held_out
    store.get_file("bucket/runs/mine/metrics.jsonl", tmp_path / "metrics.jsonl")
    measured = [
        [line for line in read_metrics(path / "metrics.jsonl") if line["kind"] != "start"]
        for path in (tmp_path, tmp_path / "run")
    ]
    for found, wanted in zip(*measured, strict=True):
        assert (found["step"], found["kind"]) == (wanted["step"], wanted["kind"])
        assert found.get("loss") == wanted.get("loss")
    names = {name.rpartition("/")[2] for name in store.find("bucket/runs/mine")}
    assert {"config.json", "config_hash", "loss.png", "data.json", "origin.json"} <= names
    assert "lock" not in names
    assert main(["eval", URL]) == 0
    assert re.search(r"^step +6 *$", capsys.readouterr().out, re.MULTILINE)
    store.rm_file("bucket/runs/mine/checkpoints/6.json")  # killed before it wrote the marker
    assert load_run(URL).step == 4
    assert parse_source(f"{URL}@4") == (URL, 4)
    assert parse_source(URL) == (URL, None)
    capsys.readouterr()
    for argv in (["eval", URL, "--task", "mqar"], ["inspect", URL, "--text", "a"]):
        assert "give a local path with --out" in refused(*argv)


def test_of_several_writers_one_has_the_lease(store, monkeypatch):
    first, second = Lease(open_path(URL)), Lease(open_path(URL))
    first.acquire()
    assert first.epoch == 1
    first.check()
    # Both saw no lease; the condition of the store lets one create it.
    monkeypatch.setattr(second, "_highest", lambda: (0, None))
    with pytest.raises(ConfigError, match=rf"^{URL} is in use by .*: wait until it ends, or give"):
        second.acquire()
    first.release()


def test_a_living_writer_is_left_alone(store, monkeypatch):
    with Mirror(URL).written():
        monkeypatch.setattr(lease, "HEARTBEAT", 0.1)
        living = Lease(open_path("s3://bucket/other"))
        living.acquire()
        with pytest.raises(ConfigError, match=r"in use by process \d+ on "):
            Lease(open_path("s3://bucket/other")).acquire()
        living.check()
        living.release()
    after = Lease(open_path(URL))
    after.acquire()  # at once: it was released
    assert after.epoch == 2
    after.release()


def test_a_dead_writer_is_replaced_and_writes_no_more(store, monkeypatch, tiny):
    """A writer that stalls: another takes over, and the first one stops before it writes."""
    dead, living = RunFolder(URL), Lease(open_path(URL))

    def work():
        with dead.locked():
            dead.write_config(tiny())
            (dead.checkpoints / "2" / "state").mkdir(parents=True)
            (dead.checkpoints / "2" / "state" / "array").write_text("old")
            monkeypatch.setattr(lease, "EXPIRY", 0.2)
            living.acquire()
            assert living.epoch == 2
            dead.check_writer()

    with pytest.raises(LeaseLostError, match=r"was taken over by process .* writes nothing more"):
        work()
    assert [name.rpartition("/")[2] for name in store.find("bucket/runs/mine")] == ["00000002.json"]
    living.check()
    living.release()


def test_a_run_that_lost_its_lease_saves_no_checkpoint(store, monkeypatch, tiny):
    def evaluate(self, step, *rest):
        if step == 4:
            monkeypatch.setattr(lease, "EXPIRY", 0.2)
            other.acquire()
        return evaluate_step(self, step, *rest)

    other = Lease(open_path(URL))
    evaluate_step = Trainer._evaluate
    monkeypatch.setattr(Trainer, "_evaluate", evaluate)
    with pytest.raises(LeaseLostError, match="was taken over"):
        train(tiny(steps=4), URL)
    assert not store.exists("bucket/runs/mine/checkpoints")
    other.release()


def test_a_checkpoint_counts_with_its_marker_and_all_its_files(store):
    writer = Mirror(URL)
    with writer.written():
        for step in (2, 4):
            folder = writer.local / "checkpoints" / str(step)
            folder.mkdir(parents=True)
            (folder / "array").write_text(f"of {step}")
        writer.push()
        (writer.local / "checkpoints" / "2" / "array").unlink()
        (writer.local / "checkpoints" / "2").rmdir()  # as Orbax deletes an old one
        writer.push()
        assert markers(store) == [4]
        assert not store.exists("bucket/runs/mine/checkpoints/2-1")
    store.pipe_file("bucket/runs/mine/checkpoints/6-1/array", b"of 6")  # killed before the marker
    store.pipe_file("bucket/runs/mine/config.json", b"{}")
    reader = Mirror(URL)
    assert saved_steps(reader.local / "checkpoints") == [4]
    reader.fetch(4)
    assert (reader.local / "checkpoints" / "4" / "array").read_text() == "of 4"
    with Mirror(URL).written():
        assert not store.exists("bucket/runs/mine/checkpoints/6-1")
    store.pipe_file("bucket/runs/mine/checkpoints/4-1/array", b"cut")
    with pytest.raises(DamagedError, match="array is not of the size"):
        Mirror(URL).fetch(4)
    store.rm_file("bucket/runs/mine/checkpoints/4-1/array")
    damaged = Mirror(URL)
    with damaged.written():
        with pytest.raises(DamagedError, match="are missing"):
            damaged.fetch(4)
        (damaged.local / "checkpoints" / "4").rename(damaged.local / "checkpoints" / "4.damaged")
    assert store.exists("bucket/runs/mine/checkpoints/4.damaged.json")
    assert markers(store) == []


def test_a_checkpoint_counts_once_all_processes_have_uploaded(store, monkeypatch, tmp_path):
    """Two processes, each with its folder: until both have, the older checkpoint counts."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    url = open_path(f"{URL}/checkpoints")
    parts = [StoredCheckpoints(url, tmp_path / str(i)) for i in (0, 1)]

    def save(number, step):
        folder = tmp_path / str(number) / str(step)
        (folder / "state").mkdir(parents=True)
        (folder / "meta").write_text("of all")
        (folder / "state" / str(number)).write_text(f"{number} of {step}")

    def upload(number):
        monkeypatch.setattr(processes, "index", lambda: number)
        parts[number].upload(7)
        if number == 0:
            parts[0].commit(7)
            parts[0].delete_gone(7)

    for step in (3, 6):
        for number in (0, 1):
            save(number, step)
        upload(0)
        assert markers(store) == [3] * (step == 6)
        if step == 6:  # Orbax keeps one, and process 1 has not uploaded its part
            shutil.rmtree(tmp_path / "0" / "3")
            upload(0)
            assert markers(store) == [3]
        upload(1)
        upload(0)
    assert markers(store) == [6]
    assert not store.exists("bucket/runs/mine/checkpoints/3-7")
    reader = StoredCheckpoints(url, tmp_path / "reader")
    reader.find()
    reader.fetch(6)
    found = tmp_path / "reader" / "6"
    assert (found / "meta").read_text() == "of all"
    assert [(found / "state" / str(i)).read_text() for i in (0, 1)] == ["0 of 6", "1 of 6"]
    reader.empty(6)
    assert saved_steps(tmp_path / "reader") == [6]
    assert not list(found.iterdir())


def test_all_processes_of_a_run_lose_its_lease(store, monkeypatch):
    first, other, next_ = (Lease(open_path(URL)) for _ in range(3))
    first.acquire()
    other.join(first.epoch, first.token)
    other.check()
    monkeypatch.setattr(lease, "EXPIRY", 0.2)
    next_.acquire()
    for lost in (first, other):
        with pytest.raises(LeaseLostError, match="was taken over"):
            lost.check()
    next_.release()


def test_a_store_that_does_not_answer_stops_no_run(store, monkeypatch):
    writer = Mirror(URL)
    with writer.written():
        monkeypatch.setattr(paths, "entries", unreachable)
        writer.check()
        with pytest.raises(ConfigError, match="cannot be reached"):
            writer.push()
        monkeypatch.undo()


def unreachable(path):
    raise ConfigError(f"{path} cannot be reached")


@pytest.fixture(scope="module")
def several(tiny):
    """A config of runs of several processes."""
    return tiny(
        "data.batch=8", 'train.logger=["jsonl"]', "mesh.fsdp=-1", steps=12, log_every=1,
        eval_every=6, health_every=100, checkpoint_every=3, checkpoint_minutes=None, keep=1,
        schedule="constant",
    )  # fmt: skip


def losses(path):
    lines = [line for line in read_metrics(path) if line["kind"] in ("train", "held_out")]
    found = {(line["step"], line["kind"]): line["loss"] for line in lines}
    assert len(found) == len(lines), "a measurement occurs twice"
    return found


def check_same(store, config, tmp_path):
    """The losses in the bucket are those of an undisturbed run of one process."""
    store.get_file("bucket/runs/mine/metrics.jsonl", tmp_path / "metrics.jsonl")
    expected = losses(train(config, tmp_path / "undisturbed").folder / "metrics.jsonl")
    assert losses(tmp_path / "metrics.jsonl") == pytest.approx(expected, rel=2e-5)


def check_whole(store, step, processes):
    """The only checkpoint has the parts of all processes, and no other object is left."""
    assert markers(store) == [step]
    marker = json.loads(store.cat_file(f"bucket/runs/mine/checkpoints/{step}.json"))
    assert len(marker["parts"]) == processes
    prefix = f"bucket/runs/mine/checkpoints/{marker['prefix']}"
    stored = {name.removeprefix(f"{prefix}/"): store.size(name) for name in store.find(prefix)}
    parts = enumerate(marker["parts"])
    named = {f"{i}/{name}": size for i, part in parts for name, size in part.items()}
    lists = {f"{i}.json" for i in range(1, processes)}
    assert {name: size for name, size in stored.items() if name not in lists} == named
    shards = [name.partition("/")[2] for name in named if "/c/" in name]
    assert len(shards) == len(set(shards)), "two processes have written one shard"
    assert {name.split("/")[4] for name in store.find("bucket/runs/mine/checkpoints")} == {
        f"{step}.json",
        marker["prefix"],
    }


@pytest.mark.multiprocess
def test_two_processes_write_one_checkpoint_and_one_resumes(store, several, tmp_path):
    ended = processes_run.run([several] * 2, [URL] * 2, tmp_path / "a", at=3, who=1, sleep=0.3)
    assert [process.code for process in ended] == [143, 143], ended
    (saved,) = markers(store)
    assert 3 < saved < 12
    assert f"step {saved} of 12, which is saved in {URL}" in ended[0].said[-1]
    check_whole(store, saved, 2)
    assert train(several, URL).resumed_from == saved
    check_same(store, several, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.multiprocess
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (1, 2), (2, 2)])
def test_a_stopped_run_resumes_with_another_number(store, several, tmp_path, before, after):
    ended = processes_run.run(
        [several] * before, [URL] * before, tmp_path / "a", at=3, who=before - 1, sleep=0.3
    )
    assert [process.code for process in ended] == [143] * before, ended
    (saved,) = markers(store)
    ended = processes_run.run([several] * after, [URL] * after, tmp_path / "b")
    assert [process.code for process in ended] == [0] * after, ended
    assert f"resuming from step {saved} of 12" in ended[0].out
    check_whole(store, 12, after)
    check_same(store, several, tmp_path)
    assert main(["eval", URL]) == 0
    assert main(["generate", URL, "--tokens", "4"]) == 0


@pytest.mark.exhaustive
@pytest.mark.multiprocess
@pytest.mark.parametrize("who", [0, 1])
def test_a_kill_leaves_the_last_complete_checkpoint(store, several, tmp_path, who, monkeypatch):
    ended = processes_run.run(
        [several] * 2, [URL] * 2, tmp_path / "a", at=7, who=who, number=signal.SIGKILL, limit=300
    )
    assert ended[who].code == -signal.SIGKILL
    (saved,) = markers(store)
    assert saved in (3, 6)
    monkeypatch.setattr(lease, "EXPIRY", 5.0)
    assert train(several, URL).resumed_from == saved
    check_same(store, several, tmp_path)


def test_what_holds_no_run(store, tiny):
    store.pipe_file("bucket/letters/one.txt", b"dear")
    with pytest.raises(ConfigError, match=r"^s3://bucket/letters is not empty and holds no run"):
        train(tiny(), "s3://bucket/letters")
    with pytest.raises(ConfigError, match=r"^s3://bucket/none is not the folder of a run"):
        load_run("s3://bucket/none")
