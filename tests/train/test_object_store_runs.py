"""Runs whose folder is on an object store: a local S3 server."""

import re

import pytest

from miras.cli.main import main
from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.paths import open_path
from miras.train import load_run, train
from miras.train.checkpoints.checkpointer import Checkpoints, saved_steps
from miras.train.checkpoints.manifest import DamagedError
from miras.train.loggers.jsonl import read_metrics
from miras.train.runs import lease
from miras.train.runs.initial_parameters import parse_source
from miras.train.runs.lease import Lease, LeaseLostError
from miras.train.runs.mirror import Mirror
from miras.train.runs.run_folder import RunFolder
from miras.train.trainer import Trainer
from tests.train.object_store import URL, markers, prefix


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
    def save_late(self, *rest):
        monkeypatch.setattr(lease, "EXPIRY", 0.2)
        other.acquire()
        return save(self, *rest)

    trained = []
    other, save = Lease(open_path(URL)), Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", save_late)
    monkeypatch.setattr(Trainer, "_train", lambda *args: trained.append(args))
    with pytest.raises(LeaseLostError, match="was taken over"):
        train(tiny(steps=4), URL)
    assert not trained
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
    folder = RunFolder(URL)
    with folder.locked():
        with pytest.raises(DamagedError, match="are missing"):
            folder.fetch(4)
        assert "checkpoint 4 is damaged" in folder.rename_damaged({4: "a file is missing"})
        assert markers(store) == []
        (folder.checkpoints / "4").mkdir()
        (folder.checkpoints / "4" / "array").write_text("of 4 again")
    assert prefix(store, "4.damaged") == "4-1"
    assert prefix(store, "4") == "4-3"
    reader = Mirror(URL)
    reader.fetch(4)
    assert (reader.local / "checkpoints" / "4" / "array").read_text() == "of 4 again"


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


def test_what_holds_no_run(store, tiny):
    store.pipe_file("bucket/letters/one.txt", b"dear")
    with pytest.raises(ConfigError, match=r"^s3://bucket/letters is not empty and holds no run"):
        train(tiny(), "s3://bucket/letters")
    with pytest.raises(ConfigError, match=r"^s3://bucket/none is not the folder of a run"):
        load_run("s3://bucket/none")
