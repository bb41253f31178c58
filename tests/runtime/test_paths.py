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
