"""Paths on disks and object stores."""

import importlib.util
import pathlib

import pytest

from miras.errors import ConfigError
from miras.runtime import paths


def test_a_local_path_has_its_home(tmp_path):
    assert not paths.is_remote(tmp_path)
    assert pathlib.Path(paths.open_path("~/texts")) == pathlib.Path.home() / "texts"
    assert paths.open_path(tmp_path).is_dir()


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("http://host/x", r"unknown scheme 'http': give gs://BUCKET"),
        ("s3:///x", r"names no bucket: give s3://BUCKET"),
        ("gs://bucket/x", r"needs the library gcsfs: .*'miras-jax\[gcs\]'"),
    ],
)
def test_what_no_store_has(path, match, monkeypatch):
    def find(name):
        return None if name == "gcsfs" else object()

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(ConfigError, match=match):
        paths.open_path(path)


def test_many_files_are_read_at_once(bucket, tmp_path):
    bucket.pipe_file("bucket/one", b"12345")
    bucket.pipe_file("bucket/two", b"")
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "two").touch()
    for folder in (paths.open_path("s3://bucket"), paths.open_path(tmp_path)):
        found = [folder / name for name in ("one", "none", "two")]
        assert paths.read_many(found) == {found[0]: b"12345", found[2]: b""}
        assert paths.read_many(found[:2], last=3) == {found[0]: b"345"}
        assert paths.read_many(found[:1], last=9) == {found[0]: b"12345"}
        assert paths.read_many([]) == {}


def test_many_files_of_a_store_that_does_not_answer(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(bucket).clear_instance_cache()
    with pytest.raises(ConfigError, match="cannot be reached"):
        paths.read_many([paths.open_path("s3://bucket/one")])
