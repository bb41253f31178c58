"""Rows of tasks on disk and in batches: prepared once, read on from any place."""

import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from miras.config import override
from miras.data import DataConfig, make_loader, vocabulary
from miras.data.task_rows import prepare
from miras.errors import ConfigError
from tests.tasks.kinds import KINDS


@pytest.fixture
def config(make, text, cache):
    """Makes the data of a task: 12 rows to train on and 3 held out, in batches of 4."""

    def made(kind="mqar", *assignments: str) -> DataConfig:
        data = DataConfig(
            source=str(text),
            task=make(kind, "examples=12"),
            sequence=672,
            batch=4,
            validation=0.25,
            cache=cache,
        )
        return override(data, *assignments)

    return made


def rows_of(batches):
    return [row.tobytes() for batch in batches for row in batch["inputs"] if row.any()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_like_one_of_text_with_an_example_a_row(kind, config):
    data = config(kind)
    found = prepare(data).as_data_source("validation")
    (batch,) = make_loader(data, "validation", align=16)
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "inputs": "int32", "targets": "int32", "segment_ids": "int32", "mask": "bool",
        "target_bytes": "float32",
    }  # fmt: skip
    assert {array.shape for array in batch.values()} == {(4, 672)}
    assert len(found) == 3
    for n, row in enumerate(found):
        np.testing.assert_array_equal(batch["inputs"][n], row["inputs"])
        np.testing.assert_array_equal(np.flatnonzero(batch["mask"][n]), row["positions"])
        np.testing.assert_array_equal(batch["targets"][n][batch["mask"][n]], row["targets"])
        assert (batch["segment_ids"][n] == 1).all()
        assert (batch["target_bytes"][n] == batch["mask"][n]).all()  # a byte each
    assert not any(array[3].any() for array in batch.values())


@pytest.mark.parametrize("kind", KINDS)
def test_training_repeats_its_rows_in_another_order_and_none_is_held_out(kind, config):
    data = config(kind)
    loader = make_loader(data, "train", align=16)
    first, second = (rows_of(next(loader) for _ in range(3)) for _ in range(2))
    assert len(set(first)) == 12
    assert set(first) == set(second)
    assert first != second
    held_out = rows_of(make_loader(data, "validation", align=16))
    assert len(held_out) == 3
    assert not set(held_out) & set(first)
    other = rows_of([next(make_loader(config(kind, "seed=1"), "train", align=16))])
    assert not set(other) & set(first)


def test_a_saved_position_gives_the_same_later_batches(config, tmp_path):
    loader = make_loader(config(), "train", align=16)
    for _ in range(5):
        next(loader)
    with ocp.training.Checkpointer(tempfile.mkdtemp(dir=tmp_path)) as checkpointer:
        checkpointer.save_checkpointables(5, {"data": loader})
        later = [next(loader) for _ in range(4)]
        resumed = make_loader(config(), "train", align=16)
        checkpointer.load_checkpointables(5, {"data": resumed})
    for batch in later:
        for name, array in next(resumed).items():
            np.testing.assert_array_equal(array, batch[name])


@pytest.mark.parametrize("change", ["task.pairs=3", "sequence=688", "seed=1", "batch=2"])
def test_a_position_in_other_rows_is_refused(config, change):
    state = make_loader(config(), "train", align=16).get_state()
    other = make_loader(config("mqar", change), "train", align=16)
    with pytest.raises(ConfigError, match=r"belongs to other data, as .*: restore the former data"):
        other.set_state(state)


def test_rows_that_are_not_wanted_are_not_read(config, monkeypatch):
    loader = make_loader(config(), "train", align=16, rows=[2])
    examples, read = loader._stream._examples, []

    class Examples:
        def __len__(self):
            return len(examples)

        def __getitem__(self, n):
            read.append(n)
            return examples[n]

    monkeypatch.setattr(loader._stream, "_examples", Examples())
    for _ in range(3):
        next(loader)
    assert read == [2, 6, 10]


def test_a_position_of_earlier_versions_counted_batches(config):
    loader, resumed = (make_loader(config(), "train", align=16) for _ in range(2))
    for _ in range(5):
        next(loader)
    resumed.set_state({"identity": {**loader.get_state()["identity"], "processes": 1}, "taken": 5})
    np.testing.assert_array_equal(next(resumed)["inputs"], next(loader)["inputs"])


def test_what_rows_depend_on_names_their_folder(config, text, babi, tmp_path):
    def folder(data):
        return pathlib.Path(prepare(data).data_path)

    base = folder(config())
    assert base.parent.name.startswith("mqar-")
    assert folder(config("mqar", "batch=2")) == base  # the same rows
    assert folder(config("mqar", "source=stdlib")) == base  # reads no text
    changes = ["task.pairs=3", "task.examples=13", "sequence=688", "seed=1", "validation=0.3"]
    others = [folder(config("mqar", change)) for change in changes]
    copied = tmp_path / "texts"
    copied.mkdir()
    for path in text.iterdir():
        (copied / path.name).write_bytes(path.read_bytes() + b" again.")
    both = [folder(config("niah", "task.form=word", f"source={s}")) for s in (text, copied)]
    stories = tmp_path / "babi"
    stories.mkdir()
    for path in babi.iterdir():
        (stories / path.name).write_bytes(path.read_bytes() + b"1 Ada slept.\n")
    both += [folder(config("babilong", f"task.babi={s}")) for s in (babi, stories)]
    assert len({base, *others, *both}) == 10


def test_an_interrupted_preparation_leaves_nothing_that_passes_for_rows(config, tmp_path, cache):
    script = (
        "import pathlib, time\n"
        "from miras.config import override\n"
        "from miras.data import DataConfig, task_rows\n"
        "from miras.tasks import MQAR\n"
        "row = MQAR.row\n"
        "def slow(self, *args):\n"
        "    if pathlib.Path('writing').exists():\n"
        "        time.sleep(60)\n"
        "    pathlib.Path('writing').touch()\n"
        "    return row(self, *args)\n"
        "MQAR.row = slow\n"
        "data = DataConfig(sequence=672, batch=4, validation=0.25, cache='cache')\n"
        "data = override(data, 'task=mqar', 'task.vocab=40', 'task.pairs=[2,5]')\n"
        "task_rows.prepare(override(data, 'task.examples=12'))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "writing").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(pathlib.Path(cache).glob("task_rows/*/1.0.0"))
    assert list(pathlib.Path(cache).glob("task_rows/*/incomplete*"))
    assert len(prepare(config()).as_data_source("train")) == 12


def test_nothing_of_this_imports_tensorflow(tmp_path):
    script = (
        "import sys\n"
        "from miras.config import override\n"
        "from miras.data import DataConfig, make_loader\n"
        "data = override(DataConfig(sequence=64, cache='c'), 'task=mqar', 'task.examples=4')\n"
        "next(make_loader(data, 'train', align=1))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_text_and_symbols_have_their_vocabularies(config, subwords):
    assert vocabulary(config("mqar")) == 40
    assert vocabulary(config("niah")) == vocabulary(config("mqar", "task=none")) == 257
    assert vocabulary(config("niah", f"tokenizer={subwords}")) > 300


@pytest.mark.parametrize("tokens", ["byte", "subwords"])
def test_target_bytes_are_those_of_the_answer(config, subwords, tokens):
    choice = [] if tokens == "byte" else [f"tokenizer={subwords}"]
    (batch,) = make_loader(config("niah", *choice), "validation", align=16)
    assert batch["target_bytes"].sum(axis=1).tolist() == [8, 8, 8, 0]  # a space and 7 digits


def test_what_does_not_fit_is_told(config, cache):
    with pytest.raises(ConfigError, match="sequence=672 is not a multiple of align=20"):
        make_loader(config(), "train", align=20)
    with pytest.raises(ConfigError, match=r"length=16 is too short for 5 pairs .* at least 20"):
        make_loader(config("mqar", "sequence=16"), "train", align=16)
    assert not list(pathlib.Path(cache).glob("task_rows/*/1.0.0"))
