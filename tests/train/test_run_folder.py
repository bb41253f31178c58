"""Whose folder it is, and who writes to it; what lies in the logs after a restart."""

import json
import os
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from miras.config import config_hash, from_json
from miras.errors import ConfigError
from miras.train import RunConfig
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.loggers.jsonl import Metrics, read_metrics
from miras.train.plot import plot_loss
from miras.train.runs.run_folder import RunFolder


def test_the_config_and_its_hash_are_saved(tiny, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.write_config(tiny())
    assert folder.read_config() == tiny()
    assert from_json(RunConfig, folder.config.read_text()) == tiny()
    assert folder.hash.read_text().strip() == config_hash(tiny())
    folder.check(tiny())


def test_another_config_is_refused_with_the_difference_and_nothing_is_written(tiny, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.write_config(tiny())
    before = {p.name: p.stat().st_mtime_ns for p in folder.path.iterdir()}
    with pytest.raises(ConfigError, match=r"train\.steps: 8 -> 9; train\.seed: 0 -> 1"):
        folder.check(tiny(steps=9, seed=1))
    assert {p.name: p.stat().st_mtime_ns for p in folder.path.iterdir()} == before


def test_a_folder_of_something_else_is_refused(tiny, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        RunFolder(tmp_path).check(tiny())
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder(tmp_path / "letter.txt").check(tiny())
    with pytest.raises(ConfigError, match=r"no config\.json"):
        RunFolder(tmp_path).read_config()
    (tmp_path / "config.json").write_text('{"model": ')
    with pytest.raises(ConfigError, match="cannot be read"):
        RunFolder(tmp_path).check(tiny())


def test_a_store_needs_its_library(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for url, extra in (("gs://bucket/run", "gcs"), ("s3://bucket/run", "s3")):
        with pytest.raises(ConfigError, match=rf"pip install 'miras-jax\[{extra}\]'"):
            RunFolder(url)


def test_a_folder_is_one_process_at_a_time(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked(), pytest.raises(ConfigError, match=f"in use .* process {os.getpid()}"):
        RunFolder(folder.path).locked().__enter__()
    with folder.locked():
        pass


def test_what_a_killed_run_leaves_is_taken_over(tmp_path):
    folder = RunFolder(tmp_path)
    script = (
        "import fcntl, os, signal, sys\n"
        "f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "f.write(str(os.getpid())); f.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder.path / "lock")], check=False)
    assert killed.returncode == -9
    assert (folder.path / "lock").read_text() != ""
    with folder.locked():
        assert (folder.path / "lock").read_text().strip() == str(os.getpid())


def test_a_path_that_cannot_be_written_is_told(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*Not a directory"):
        RunFolder(tmp_path / "file" / "run").locked().__enter__()


def open_metrics(folder, after):
    return Metrics(folder / "metrics.jsonl", folder / "tensorboard", after)


def test_logs_go_on_without_a_step_twice(tmp_path):
    metrics = open_metrics(tmp_path, 0)
    for step in (1, 2, 3):
        metrics.write(step, "train", {"loss": float(step)})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ki')  # killed while it wrote
    metrics = open_metrics(tmp_path, 2)
    for step in (3, 4):
        metrics.write(step, "train", {"loss": 10.0 * step})
    metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1), (2, 2), (3, 30), (4, 40)]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "line",
    ['{"step": "x"}', '{"step": null}', '{"step": 1.5}', '{"step": true}', "[" * 100_000, "7",
     '{"step": ' + "9" * 5000 + "}", "\udcff", '{"kind": "train"}'],
)  # fmt: skip
def test_a_line_without_a_step_is_left_out(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f'{line}\n{{"step": 1, "loss": 2.0}}\n'.encode(errors="surrogateescape"))
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
    open_metrics(tmp_path, 3).close()
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize("name", ["²", "४", "4x", "-1", "007", "9" * 200, "", "4.orbax-tmp"])
def test_a_folder_that_is_no_step_is_no_checkpoint(tmp_path, name):
    for step in ("0", "12", "4"):
        (tmp_path / step).mkdir()
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "8").touch()
    assert saved_steps(tmp_path) == [0, 4, 12]


def test_a_config_that_lacks_its_model_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"data": {}}')
    with pytest.raises(ConfigError, match=r"config.json cannot be read \(RunConfig has no 'model'"):
        RunFolder(tmp_path).read_config()


def test_what_is_not_finite_is_null_since_json_has_no_nan(tmp_path):
    metrics = open_metrics(tmp_path, 0)
    metrics.write(1, "health", {"norm": [1.0, float("inf")], "gates": {"lr": [float("nan")]}})
    metrics.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    found = json.loads(line, parse_constant=pytest.fail)
    assert found.pop("time") > 0
    assert found == {
        "step": 1,
        "kind": "health",
        "norm": [1.0, None],
        "gates": {"lr": [None]},
    }


def read_events(folder):
    """TensorBoard's records: length, its checksum, an Event, its checksum."""
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def test_tensorboard_is_told_the_same(tmp_path):
    metrics = open_metrics(tmp_path, 6)
    metrics.write(7, "health", {"norm": [1.0, 2.0], "gates": {"lr": [0.5, 0.25]}})
    metrics.close()
    events = list(read_events(tmp_path / "tensorboard"))
    scalars = {
        value.tag: (event.step, value.simple_value)
        for event in events
        for value in event.summary.value
    }
    assert scalars == {
        "health/norm/layer_0": (7, 1.0),
        "health/norm/layer_1": (7, 2.0),
        "health/gates/lr/layer_0": (7, 0.5),
        "health/gates/lr/layer_1": (7, 0.25),
    }
    assert any(event.session_log.status == 1 and event.step == 7 for event in events)


def test_the_picture_is_drawn_from_any_lines(tmp_path):
    lines = [
        {"step": 1, "kind": "train", "bits_per_byte": 8.0},
        {"step": 2, "kind": "train", "bits_per_byte": None},
        {"step": 2, "kind": "held_out", "bits_per_byte": 7.0},
        {"step": 2, "kind": "health", "inner_loss": [1.0]},
    ]
    for n, some in enumerate(([], lines)):
        path = tmp_path / f"{n}.png"
        plot_loss(some, "Run", path)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "1.png").stat().st_size > (tmp_path / "0.png").stat().st_size
