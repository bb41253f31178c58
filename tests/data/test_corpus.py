"""Prepared data sets and their division: local text and TFDS."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from miras.data import DataConfig
from miras.data.text.corpus import open_documents, validation_mask
from miras.data.text.documents import DocumentSource
from miras.data.text.local_text import prepare
from miras.errors import ConfigError


def both(config):
    return list(open_documents(config, "train")), list(open_documents(config, "validation"))


def prepared(cache):
    return sorted(path.parent.parent.name for path in cache.rglob("dataset_info.json"))


def test_a_prepared_set_is_array_record_and_records_its_source(folder, tmp_path):
    builder = prepare(str(folder), tmp_path / "cache")
    again = tfds.builder_from_directory(str(builder.data_dir))
    assert again.info.file_format.value == "array_record"
    assert set(again.info.features) == {"text", "name"}
    assert again.info.metadata["source"] == str(folder)
    assert again.info.metadata["files"] == 40
    assert builder.data_path.parent.name == f"texts-{again.info.metadata['sha256'][:16]}"
    record = tfds.data_source(
        f"local_text/{builder.data_path.parent.name}:1.0.0",
        split="documents",
        data_dir=str(tmp_path / "cache"),
    )[1]
    name = record["name"].decode()
    assert record["text"] == (folder / name).read_bytes()


def test_a_changed_or_renamed_file_is_prepared_anew_and_a_moved_folder_is_not(folder, tmp_path):
    cache = tmp_path / "cache"
    prepare(str(folder), cache)
    prepare(str(folder), cache)
    (tmp_path / "elsewhere").mkdir()
    folder = folder.rename(tmp_path / "elsewhere" / "texts")
    prepare(str(folder), cache)
    assert len(prepared(cache)) == 1
    path = folder / "sub0" / "file39.txt"
    stamp = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    prepare(str(folder), cache)
    assert len(prepared(cache)) == 2
    path.rename(path.with_name("file3z.txt"))  # its place in the order is the same
    prepare(str(folder), cache)
    assert len(prepared(cache)) == 3


def test_a_document_keeps_its_side_when_others_come_and_go(folder, cache):
    config = DataConfig(source=str(folder), cache=cache, validation=0.3)
    train, held_out = both(config)
    assert 4 < len(held_out) < 20
    (folder / "0_first.txt").write_bytes(b"a new document before all others")
    (folder / "sub1" / "file01.txt").rename(folder / "zz_last.txt")
    other_seed = DataConfig(source=str(folder), cache=cache, validation=0.3, seed=5)
    new_train, new_held_out = both(other_seed)
    assert set(train) <= set(new_train)
    assert set(held_out) <= set(new_held_out)
    assert len(new_train) + len(new_held_out) == 41


@given(
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30),
    fraction=st.floats(1e-9, 1 - 1e-9),
)
def test_neither_side_is_ever_empty(keys, fraction):
    mask = validation_mask(np.array(keys, np.uint64), fraction)
    assert mask.any()
    assert not mask.all()


def test_the_fraction_held_out_is_as_asked():
    keys = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64, endpoint=False)
    # Five standard deviations of a binomial.
    assert abs(validation_mask(keys, 0.05).mean() - 0.05) < 5 * (0.05 * 0.95 / 20_000) ** 0.5


@pytest.mark.parametrize("size", [600, 10_000, 3_000_000])
def test_a_single_file_gives_both_splits(tmp_path, cache, size):
    text = b"".join(b"line %d of the only file\n" % n for n in range(size))[:size]
    (tmp_path / "one.txt").write_bytes(text)
    train, held_out = both(DataConfig(source=str(tmp_path / "one.txt"), cache=cache))
    assert train
    assert held_out
    assert sum(map(len, train + held_out)) == size


def test_an_interrupted_preparation_leaves_nothing_that_passes_for_a_data_set(tmp_path):
    cache, texts = tmp_path / "cache", tmp_path / "texts"
    texts.mkdir()
    for n in range(5):
        (texts / f"{n}.txt").write_bytes(b"text %d" % n)
    script = (
        "import pathlib, time\n"
        "from miras.data.text import local_text\n"
        "def slow(files):\n"
        "    yield 'a', b'partial'\n"
        "    pathlib.Path('writing').touch()\n"
        "    time.sleep(60)\n"
        "local_text.read_documents = slow\n"
        f"local_text.prepare({str(texts)!r}, pathlib.Path({str(cache)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "writing").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert prepared(cache) == []
    documents = prepare(str(texts), cache).as_data_source("documents")
    assert [record["text"] for record in documents] == [b"text %d" % n for n in range(5)]


def test_a_failed_preparation_is_tried_again(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"text of a file")

    def broken(files):
        yield "a", b"partial"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("miras.data.text.local_text.read_documents", broken)
        with pytest.raises(ValueError, match=r"No space left on device.*MIRAS_CACHE"):
            prepare(str(tmp_path / "a.txt"), tmp_path / "cache")
    assert prepared(tmp_path / "cache") == []
    assert (
        len(prepare(str(tmp_path / "a.txt"), tmp_path / "cache").as_data_source("documents")) == 1
    )


def test_a_damaged_key_cache_is_computed_anew(folder, tmp_path, cache):
    config = DataConfig(source=str(folder), cache=cache)
    expected = both(config)
    (path,) = (tmp_path / "cache" / "content_keys").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert both(config) == expected
    np.testing.assert_array_equal(np.load(path).shape, (40,))


def test_a_name_that_is_not_utf8_is_kept_as_it_is(tmp_path):
    (tmp_path / "texts").mkdir()
    path = os.fsencode(tmp_path / "texts") + b"/caf\xe9.txt"
    with open(path, "wb") as stream:
        stream.write(b"text")
    (tmp_path / "texts" / "other.txt").write_bytes(b"other")
    record, _ = prepare(str(tmp_path / "texts"), tmp_path / "cache").as_data_source("documents")
    assert record == {"name": b"caf\xe9.txt", "text": b"text"}


def test_a_tfds_set_keeps_its_own_validation_split(cache, tiny_tfds):
    tiny_tfds({"train": ["one", "two"], "validation": ["three", "four"], "test": ["five"]})
    train, held_out = both(DataConfig(source="tfds:tiny_text", cache=cache))
    assert (sorted(train), sorted(held_out)) == ([b"one", b"two"], [b"four", b"three"])


def test_a_tfds_set_without_one_is_divided_by_content(cache, tiny_tfds):
    texts = [f"document {n}" for n in range(60)]
    tiny_tfds({"train": texts, "test": ["never read"]})
    train, held_out = both(DataConfig(source="tfds:tiny_text", cache=cache, validation=0.2))
    assert sorted(train + held_out) == sorted(text.encode() for text in texts)
    assert 2 < len(held_out) < 30


def test_a_lone_long_record_is_cut_into_documents(cache, tiny_tfds):
    play = "".join(f"line {n} of a play\n" for n in range(20_000))
    tiny_tfds({"train": [play], "validation": [play[:999]]})
    train, held_out = both(DataConfig(source="tfds:tiny_text", cache=cache))
    assert b"".join(train).decode() == play
    assert len(train) > 20
    assert all(text.endswith(b"\n") for text in train)
    assert b"".join(held_out).decode() == play[:999]


def test_a_text_feature_is_found_or_named(cache, tiny_tfds):
    tiny_tfds({"train": ["a", "b"], "validation": ["c"]}, features=("book",))
    config = DataConfig(source="tfds:tiny_text", cache=cache)
    assert list(open_documents(config, "validation")) == [b"c"]
    tiny_tfds(
        {"train": ["a", "b"], "validation": ["of a config"]},
        config=tfds.core.BuilderConfig(name="en"),
    )
    with_config = DataConfig(source="tfds:tiny_text/en", cache=cache)
    assert list(open_documents(with_config, "validation")) == [b"of a config"]
    named = DataConfig(source="tfds:tiny_text:1.2.3#book", cache=cache)
    assert list(open_documents(named, "validation")) == [b"c"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A corpus, its cache and what it holds."""
    root = tmp_path_factory.mktemp("whole")
    (root / "texts").mkdir()
    for n in range(8):
        (root / "texts" / f"{n}.txt").write_text(f"text {n} " * 40)
    config = DataConfig(source=str(root / "texts"), cache=str(root / "cache"))
    return root, both(config)


FILES = ["content_keys/*.npy", *(f"local_text/*/*/{x}" for x in ("*.json", "*array_record*"))]
DAMAGE = {
    "emptied": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "replaced": lambda content: b"\0\xff{",
    "flipped": lambda content: content[:120] + bytes([content[120] ^ 8]) + content[121:],
}


@pytest.mark.parametrize("damage", [*DAMAGE, "removed"])
@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_cache_is_made_anew(whole, tmp_path, pattern, damage):
    root, expected = whole
    config = DataConfig(source=str(root / "texts"), cache=str(tmp_path / "cache"))
    names = [path.relative_to(root / "cache") for path in (root / "cache").glob(pattern)]
    assert names
    for name in names:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        shutil.copytree(root / "cache", tmp_path / "cache")
        path = tmp_path / "cache" / name
        content = path.read_bytes()
        if damage == "removed":
            path.unlink()
        elif len(content) > 121 or damage != "flipped":
            path.write_bytes(DAMAGE[damage](content))
        assert both(config) == expected


def test_a_record_that_is_damaged_while_it_is_read_is_one_sentence(tmp_path):
    class Source(list):
        def __getitem__(self, index):
            raise RuntimeError("Corrupted Riegeli/records file:\nat byte 104")

        __getitems__ = __getitem__

    documents = DocumentSource(Source([0]), "text", "it", where="/some/folder")
    for read in (lambda: documents[0], documents.keys):
        with pytest.raises(ConfigError, match=r"prepared data in '/some/folder' is damaged .*104"):
            read()
