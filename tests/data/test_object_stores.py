"""Text and prepared sets on an object store: a local S3 server."""

import itertools
import os
import pathlib

import numpy as np
import pytest

from miras.config import override
from miras.data import DataConfig, make_loader
from miras.data.prepared.prepare import prepare
from miras.data.prepared.verify import verify
from miras.data.text import read_report
from miras.data.text.corpus import open_documents
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.errors import ConfigError
from miras.presets import preset
from miras.train.config import RunConfig
from miras.train.runs import provenance

BUCKET = "s3://bucket"


@pytest.fixture
def store(bucket, monkeypatch, folder):
    """The largest texts of `folder`, alone, at s3://bucket/texts; returns the file system."""
    for path in folder.rglob("*.txt"):
        if path.name < "file28":
            path.unlink()
    bucket.put(f"{folder}/", f"{BUCKET}/texts/", recursive=True)
    return bucket


@pytest.fixture
def local(folder, tmp_path):
    cache = str(tmp_path / "local_cache")
    return DataConfig(source=str(folder), cache=cache, sequence=64, batch=4, validation=0.2)


@pytest.fixture
def remote(store, local, cache):
    return override(local, f"source={BUCKET}/texts", f"cache={cache}")


def assert_same(one, other, count=5):
    for a, b in itertools.islice(zip(one, other, strict=True), count):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_text_is_read_as_the_same_files_on_a_disk(remote, local, store, monkeypatch):
    loader = make_loader(remote, "train", align=8)
    assert_same(loader, make_loader(local, "train", align=8))
    with read_report.collect_reports() as reports:
        assert (
            open_documents(remote, "train").fingerprint == loader.get_state()["identity"]["corpus"]
        )
    assert reports[0].source == f"{BUCKET}/texts"
    copied = []
    monkeypatch.setattr("miras.data.text.remote.download", lambda path, _: copied.append(path))
    open_documents(remote, "train")
    assert copied == []
    monkeypatch.undo()


def test_a_changed_object_is_copied_and_one_that_is_gone_is_removed(remote, local, store, folder):
    open_documents(remote, "train")
    (folder / "sub0" / "file39.txt").write_bytes(b"other text " * 99)
    store.put_file(folder / "sub0" / "file39.txt", f"{BUCKET}/texts/sub0/file39.txt")
    (folder / "sub2" / "file38.txt").unlink()
    store.rm_file(f"{BUCKET}/texts/sub2/file38.txt")
    found, expected = (open_documents(config, "train") for config in (remote, local))
    assert found.fingerprint == expected.fingerprint
    assert list(found) == list(expected)


def test_a_file_and_a_glob_are_sources(remote, local, folder):
    for name in ("sub0/file39.txt", "sub1/*.txt"):
        found = open_documents(override(remote, f"source={BUCKET}/texts/{name}"), "train")
        expected = open_documents(override(local, f"source={folder}/{name}"), "train")
        assert list(found) == list(expected)


def test_a_set_is_written_verified_and_read(remote, local, store, tmp_path):
    made = prepare(remote, f"{BUCKET}/set", align=8, shard_bytes=4_000, shard=(1, 2))
    assert not made.finished
    made = prepare(remote, f"{BUCKET}/set", align=8, shard_bytes=4_000, shard=(0, 2))
    assert made.finished
    here = prepare(
        override(local, f"source={BUCKET}/texts"), tmp_path / "set", align=8, shard_bytes=4_000
    )
    assert verify(f"{BUCKET}/set").fingerprint == verify(tmp_path / "set").fingerprint
    config = override(remote, f"source={BUCKET}/set")
    assert_same(
        make_loader(config, "train", align=8),
        make_loader(override(local, f"source={tmp_path / 'set'}"), "train", align=8),
    )
    again = prepare(remote, f"{BUCKET}/set", align=8, shard_bytes=4_000)
    assert again.kept == sum(made.plan.shards.values())
    assert here.plan == made.plan

    name = made.shards["train"][0].file
    content = bytearray(store.cat_file(f"{BUCKET}/set/{name}"))
    content[100] ^= 1
    store.pipe_file(f"{BUCKET}/set/{name}", bytes(content))
    with pytest.raises(ConfigError, match=rf"'{BUCKET}/set/{name}' .* is damaged .*sha256"):
        verify(f"{BUCKET}/set")
    copies = pathlib.Path(config.cache, "prepared_copies")
    for path in copies.iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match=rf"'{BUCKET}/set/{name}' .* is damaged .*sha256"):
        list(make_loader(config, "train", align=8, epochs=1))


def test_a_tokenizer_is_read_from_its_object(remote, local, store, tmp_path, monkeypatch):
    tokenizers = pytest.importorskip("tokenizers")
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path / "cache"))
    words = tokenizers.models.WordLevel({"[UNK]": 0, "text": 1}, unk_token="[UNK]")
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(words).save(str(path))
    store.put_file(path, f"{BUCKET}/tokenizer.json")
    found = make_tokenizer(f"{BUCKET}/tokenizer.json")
    assert found.fingerprint == make_tokenizer(str(path)).fingerprint
    there = RunConfig(preset("yaad"), override(remote, f"tokenizer={BUCKET}/tokenizer.json"))
    here = RunConfig(preset("yaad"), override(local, f"tokenizer={path}"))
    run = tmp_path / "run"
    run.mkdir()
    provenance.save(run, there, provenance.tokenizer_hash(here))
    store.rm_file(f"{BUCKET}/tokenizer.json")
    provenance.check_tokenizer(run, there)
    assert provenance.relocate(run, there).data.tokenizer == str(run / "tokenizer.json")


def test_what_is_not_there(remote, store):
    for source in (f"{BUCKET}/none", f"{BUCKET}/none/*.txt", "s3://nobody/texts"):
        with pytest.raises(ConfigError, match=r"does not exist|cannot be reached"):
            make_loader(override(remote, f"source={source}"), "train", align=8)
    with pytest.raises(ConfigError, match=r"data\.cache='s3://.*must be a local folder"):
        DataConfig(cache="s3://bucket/cache")
    with pytest.raises(ConfigError, match=r"tokenizer file 's3://.* does not exist"):
        make_loader(override(remote, f"tokenizer={BUCKET}/tokenizer.json"), "train", align=8)


def test_a_store_that_cannot_be_reached(remote, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ConfigError, match=r"cannot be reached \(.*\): check the bucket") as error:
        make_loader(remote, "train", align=8)
    assert "\n" not in str(error.value)
    assert os.environ["AWS_ENDPOINT_URL"].endswith(":9")
