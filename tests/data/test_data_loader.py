"""The loader from files to batches: coverage, order, resuming."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from miras.data import ByteTokenizer, DataConfig, make_loader
from miras.data.text.corpus import open_documents
from miras.errors import ConfigError

SMALL = {"sequence": 32, "batch": 4, "validation": 0.2}


@pytest.fixture
def config(folder, cache):
    return DataConfig(source=str(folder), cache=cache, **SMALL)


def count_bytes(batches):
    return sum(np.bincount(b["targets"][b["mask"]], minlength=256) for b in batches)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_one_epoch_has_every_byte_of_the_split_once(config, split, shuffle):
    documents = list(open_documents(config, split))
    batches = list(make_loader(config, split, align=8, epochs=1, shuffle=shuffle))
    expected = np.bincount(np.frombuffer(b"".join(documents), np.uint8), minlength=256)
    np.testing.assert_array_equal(count_bytes(batches), expected)
    assert sum(b["target_bytes"].sum() for b in batches) == sum(map(len, documents))
    assert sum((b["inputs"] == 256).sum() for b in batches) == len(documents)
    if not shuffle:
        spelled = np.concatenate([b["targets"][b["mask"]] for b in batches])
        assert ByteTokenizer().decode_bytes(spelled) == b"".join(documents)


def test_the_splits_together_are_the_folder(config, folder):
    files = sorted(path.read_bytes() for path in folder.rglob("*.txt"))
    parts = [*open_documents(config, "train"), *open_documents(config, "validation")]
    assert sorted(parts) == files


def test_batches_have_the_promised_shapes_and_types(config):
    batch = next(make_loader(config, "train", align=16))
    assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
        "inputs": ((4, 32), "int32"),
        "targets": ((4, 32), "int32"),
        "segment_ids": ((4, 32), "int32"),
        "mask": ((4, 32), "bool"),
        "target_bytes": ((4, 32), "float32"),
    }


def first(config, n=6, **kwargs):
    kwargs = {"align": 8, **kwargs}
    return np.stack(
        [b["targets"] for b in itertools.islice(make_loader(config, "train", **kwargs), n)]
    )


def test_train_order_follows_the_seed_and_changes_every_epoch(config, folder, cache):
    np.testing.assert_array_equal(first(config), first(config))
    other = DataConfig(source=str(folder), cache=cache, seed=1, **SMALL)
    assert not np.array_equal(first(config), first(other))
    steps = len(list(make_loader(config, "train", align=8, epochs=1)))
    twice = list(make_loader(config, "train", align=8, epochs=2))
    one = count_bytes(make_loader(config, "train", align=8, epochs=1))
    np.testing.assert_array_equal(count_bytes(twice), 2 * one)
    assert not np.array_equal(twice[0]["targets"], twice[steps]["targets"])


def test_a_training_batch_mixes_documents_and_repeats_none(tmp_path, cache):
    (tmp_path / "letters").mkdir()
    for n in range(24):
        (tmp_path / "letters" / f"{n}.txt").write_bytes(bytes([n + 1]) * 96)
    config = DataConfig(source=str(tmp_path / "letters"), cache=cache, **SMALL)
    for batch in itertools.islice(make_loader(config, "train", align=8), 4):
        assert len(np.unique(batch["targets"][:, 0])) == config.batch


def test_a_position_in_a_corpus_that_changed_is_refused(config, folder):
    state = make_loader(config, "train", align=8).get_state()
    make_loader(config, "train", align=8).set_state(state)
    (folder / "sub0" / "file39.txt").write_bytes(b"other text " * 99)
    with pytest.raises(ConfigError, match=r"position belongs to other data, as corpus was"):
        make_loader(config, "train", align=8).set_state(state)


def test_train_goes_on_for_ever_and_validation_ends(config):
    steps = len(list(make_loader(config, "train", align=8, epochs=1)))
    assert len(first(config, 3 * steps)) == 3 * steps
    validation = [list(make_loader(config, "validation", align=8)) for _ in range(2)]
    assert len(validation[0]) == len(validation[1]) > 0
    for a, b in zip(*validation, strict=True):
        np.testing.assert_array_equal(a["targets"], b["targets"])


@pytest.mark.parametrize("steps", [0, 1, 13, 200])
def test_orbax_restores_the_position_in_the_middle_of_a_document(config, tmp_path, steps):
    loader = make_loader(config, "train", align=8)
    for _ in range(steps):
        next(loader)
    with ocp.training.Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save_checkpointables(steps, {"data": loader})
        expected = [next(loader) for _ in range(20)]
        restored = make_loader(config, "train", align=8)
        checkpointer.load_checkpointables(steps, {"data": restored})
    for batch in expected:
        other = next(restored)
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def test_tensorflow_is_never_imported(folder, cache):
    script = (
        "import sys\n"
        "from miras.data import DataConfig, make_loader\n"
        f"config = DataConfig(source={str(folder)!r}, cache={cache!r}, sequence=32)\n"
        "for split in ('train', 'validation'):\n"
        "    next(make_loader(config, split, align=8))\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] == 'tensorflow'))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")
