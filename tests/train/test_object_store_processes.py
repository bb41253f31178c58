"""Runs of several processes whose folder is on an object store: a local S3 server."""

import dataclasses
import json
import os
import re
import shutil
import signal
import types

import pytest

from miras.cli.main import main
from miras.errors import ConfigError
from miras.runtime import paths, processes
from miras.runtime.paths import open_path
from miras.train import train
from miras.train.checkpoints.checkpointer import rename_damaged, saved_steps
from miras.train.checkpoints.manifest import DamagedError
from miras.train.loggers.jsonl import read_metrics
from miras.train.runs import lease
from miras.train.runs.lease import Lease
from miras.train.runs.stored_checkpoints import StoredCheckpoints
from tests.train import processes_run
from tests.train.object_store import URL, markers, prefix


class Parts:
    """The copies that two processes of a run have."""

    def __init__(self, monkeypatch, folder, epoch):
        monkeypatch.setattr(processes, "count", lambda: 2)
        self.folders, self.epoch = [folder / str(i) for i in (0, 1)], epoch
        url = open_path(f"{URL}/checkpoints")
        self.parts = [StoredCheckpoints(url, folder) for folder in self.folders]
        self._be = lambda number: monkeypatch.setattr(processes, "index", lambda: number)

    def save(self, *steps):
        for step in steps:
            for number, copy in enumerate(self.folders):
                (copy / str(step) / "state").mkdir(parents=True)
                (copy / str(step) / "meta").write_text("of all")
                shard = copy / str(step) / "state" / str(number)
                shard.write_text(f"{number} of {step} by {self.epoch}")

    def upload(self, number):
        self._be(number)
        self.parts[number].upload(self.epoch)
        if number == 0:
            self.parts[0].commit(self.epoch)
            self.parts[0].delete_gone(self.epoch)

    def each(self, act):
        for number, part in enumerate(self.parts):
            self._be(number)
            act(part)


def check_read(folder, step, epoch):
    """A process reads the union of what two have written."""
    reader = StoredCheckpoints(open_path(f"{URL}/checkpoints"), folder)
    reader.find()
    reader.fetch(step)
    found = folder / str(step)
    assert (found / "meta").read_text() == "of all"
    for number in (0, 1):
        assert (found / "state" / str(number)).read_text() == f"{number} of {step} by {epoch}"
    reader.empty(step)
    assert step in saved_steps(folder)
    assert not list(found.iterdir())


def test_a_checkpoint_counts_once_all_processes_have_uploaded(store, monkeypatch, tmp_path):
    """Two processes, each with its folder: until both have, the older checkpoint counts."""
    run = Parts(monkeypatch, tmp_path, epoch=7)
    for step in (3, 6):
        run.save(step)
        run.upload(0)
        assert markers(store) == [3] * (step == 6)
        if step == 6:  # Orbax keeps one, and process 1 has not uploaded its part
            shutil.rmtree(run.folders[0] / "3")
            run.upload(0)
            assert markers(store) == [3]
        run.upload(1)
        assert markers(store) == [3] * (step == 6)
        run.upload(0)
    assert markers(store) == [6]
    assert not store.exists("bucket/runs/mine/checkpoints/3-7")
    check_read(tmp_path / "reader", 6, epoch=7)


@pytest.mark.parametrize("number", [0, 1])
def test_a_part_counts_once_all_its_files_are_there(store, monkeypatch, tmp_path, number):
    """The connection of a process is cut after one of its files; it repeats the upload later."""

    def upload_one(local, remote):
        store.put_file(local[0], remote[0])
        raise OSError("the connection is lost")

    run = Parts(monkeypatch, tmp_path, epoch=1)
    run.save(3)
    run.upload(1 - number)
    with monkeypatch.context() as patch:
        patch.setattr(paths, "file_system", lambda _: types.SimpleNamespace(put=upload_one))
        with pytest.raises(ConfigError, match="the connection is lost"):
            run.upload(number)
    assert len(store.find(f"bucket/runs/mine/checkpoints/3-1/{number}")) == 1
    if number == 1:
        run.upload(0)
    assert markers(store) == []
    run.upload(number)
    run.upload(0)
    assert markers(store) == [3]
    check_read(tmp_path / "reader", 3, epoch=1)


@pytest.mark.parametrize("uploaded", [0, 1])
def test_parts_of_a_killed_run_are_never_read(store, monkeypatch, tmp_path, uploaded):
    """One process had uploaded its part; the next run saves the same step."""
    killed = Parts(monkeypatch, tmp_path / "killed", epoch=1)
    killed.save(3)
    killed.upload(1)
    killed.upload(0)
    killed.save(6)
    killed.upload(uploaded)
    after = Parts(monkeypatch, tmp_path / "after", epoch=2)
    after.each(StoredCheckpoints.find)
    assert [saved_steps(folder) for folder in after.folders] == [[3], [3]]
    after.save(6)
    after.upload(1 - uploaded)
    after.upload(0)
    assert markers(store) == [3, *[6] * (uploaded == 0)]
    after.upload(uploaded)
    after.upload(0)
    assert markers(store) == [3, 6]
    check_read(tmp_path / "reader", 6, epoch=2)
    assert store.exists("bucket/runs/mine/checkpoints/6-1")
    after.parts[0].delete_uncommitted(2)
    assert not store.exists("bucket/runs/mine/checkpoints/6-1")
    check_read(tmp_path / "first", 3, epoch=1)
    check_read(tmp_path / "last", 6, epoch=2)


def test_a_damaged_checkpoint_of_several_processes_is_saved_again(store, monkeypatch, tmp_path):
    before = Parts(monkeypatch, tmp_path / "before", epoch=1)
    before.save(6)
    before.upload(1)
    before.upload(0)
    store.pipe_file("bucket/runs/mine/checkpoints/6-1/1/state/1", b"cut")
    after = Parts(monkeypatch, tmp_path / "after", epoch=2)
    after.each(StoredCheckpoints.find)
    with pytest.raises(DamagedError, match="state/1 is not of the size"):
        after.parts[0].fetch(6)
    for folder in after.folders:
        rename_damaged(folder, {6: "state/1 is not of the size"})
    after.each(lambda part: part.set_aside([6]))
    assert markers(store) == []
    after.save(6)
    after.upload(1)
    after.upload(0)
    check_read(tmp_path / "reader", 6, epoch=2)
    assert prefix(store, "6.damaged") == "6-1"


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
    for name in ("0/state/part", "1.json"):  # what a run that was killed earlier may have left
        store.pipe_file(f"bucket/runs/mine/checkpoints/{saved + 1}-0/{name}", b"{}")
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
    assert main(["generate", URL, "--length", "4"]) == 0


def killed_before_it_writes(name):
    """The code with which a process kills itself in place of writing an object."""
    return f"""
from miras.runtime import paths
write = paths.write
def write_or_die(path, content):
    if path.name == {name!r}:
        os.kill(os.getpid(), 9)
    write(path, content)
paths.write = write_or_die
"""


@pytest.mark.exhaustive
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("who", "action", "steps"),
    [
        (0, None, [3, 6]),
        (1, None, [3, 6]),
        (0, killed_before_it_writes("6.json"), [3]),
        (1, killed_before_it_writes("1.json"), [3]),
    ],
    ids=["0", "1", "0 before the marker", "1 before its list"],
)
def test_a_kill_leaves_the_last_complete_checkpoint(
    store, several, tmp_path, who, action, steps, monkeypatch
):
    ended = processes_run.run(
        [several] * 2, [URL] * 2, tmp_path / "a", at=7, who=who, number=signal.SIGKILL,
        action=action, limit=300,
    )  # fmt: skip
    assert ended[who].code == -signal.SIGKILL
    other = ended[1 - who]
    assert other.code == 75 or (who == 0 and other.code == -signal.SIGABRT), other
    saved = markers(store)[-1]
    assert saved in steps
    monkeypatch.setattr(lease, "EXPIRY", 5.0)
    assert train(several, URL).resumed_from == saved
    check_same(store, several, tmp_path)
    assert markers(store) == [12]


def full_disk(background):
    """The code with which the saves of a process fail from then on, at once or in their thread."""
    return f"""
from miras.train.checkpoints.manifest import Manifest
async def refuse():
    raise OSError(28, "No space left on device")
async def save(self, directory):
    if {background}:
        return refuse()
    await refuse()
Manifest.save = save
"""


@pytest.mark.exhaustive
@pytest.mark.multiprocess
@pytest.mark.parametrize(("who", "background"), [(0, False), (1, True)])
def test_a_save_that_fails_in_one_process_ends_all(store, several, tmp_path, who, background):
    ended = processes_run.run(
        [several] * 2, [URL] * 2, tmp_path / "a", at=4, who=who, action=full_disk(background)
    )
    words = (
        r"could not save a checkpoint in .* \(.*No space left on device\); the last good "
        "checkpoint is step 3: free space or make the folder writable, and repeat the command"
    )
    for number, process in enumerate(ended):
        assert process.code == 2, process
        assert re.search(words, process.said[-1]), process
        assert number == who or f"process {who}: could" in process.said[-1]
    assert markers(store) == [3]
    assert train(several, URL).resumed_from == 3
    check_same(store, several, tmp_path)
    assert markers(store) == [12]


@pytest.mark.exhaustive
@pytest.mark.multiprocess
def test_a_second_run_of_several_processes_is_refused(store, several, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT", 0.5)
    first = Lease(open_path(URL))
    first.acquire()
    ended = processes_run.run([several] * 2, [URL] * 2, tmp_path / "a", limit=120)
    first.check()
    first.release()
    for process in ended:
        assert process.code == 2, process
        words = rf"{URL} is in use by process {os.getpid()} on .*: wait until it ends, or give"
        assert re.search(words, process.said[-1]), process
    assert [name.rpartition("/")[2] for name in store.find("bucket")] == ["00000001.json"]


@pytest.mark.exhaustive
@pytest.mark.multiprocess
def test_processes_agree_that_a_part_is_damaged(store, several, tmp_path):
    two = dataclasses.replace(several, train=dataclasses.replace(several.train, keep=2))
    ended = processes_run.run([two] * 2, [URL] * 2, tmp_path / "a", at=7, who=1, sleep=0.3)
    assert [process.code for process in ended] == [143] * 2, ended
    before, saved = markers(store)
    folder = f"bucket/runs/mine/checkpoints/{prefix(store, saved)}/1"
    shards = [name for name in store.find(folder) if "/c/" in name]  # metadata is that of process 0
    shard = max(shards, key=store.size)
    content = bytearray(store.cat_file(shard))
    content[len(content) // 2] ^= 1
    store.pipe_file(shard, bytes(content))
    ended = processes_run.run([two] * 2, [URL] * 2, tmp_path / "b")
    assert [process.code for process in ended] == [0] * 2, ended
    assert f"checkpoint {saved} is damaged and was renamed" in ended[0].out
    assert f"resuming from step {before} of 12" in ended[0].out
    assert markers(store) == [9, 12]
    assert store.exists(f"bucket/runs/mine/checkpoints/{saved}.damaged.json")
    check_same(store, two, tmp_path)
