"""Random bytes in files of every kind: they are read, or answered with one sentence."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import pathlib
import tempfile

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from miras.data import DataConfig, make_loader
from miras.data.text.sources import one_file, survey
from miras.data.text.splitting import read_documents, text_blocks
from miras.errors import ConfigError

COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}
SUFFIXES = ["", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".zip", ".pdf", ".TXT"]
STARTS = [
    b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"PAR1",
    b"PK\x03\x04", b"%PDF-", b'{"text": "', b'{"text": ', b"[", b"\x80\x04\x95", b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd", b"BZh9",
]  # fmt: skip
fast = settings(max_examples=150, deadline=None, derandomize=True, database=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "body"]), inner, max_size=2)
    ),
    max_leaves=5,
)
json_lines = st.lists(json_values.map(json.dumps), max_size=5).map("\n".join).map(str.encode)
contents = st.builds(
    lambda start, rest, end: start + rest + end,
    st.sampled_from(STARTS),
    st.binary(max_size=60) | st.text(max_size=30).map(str.encode) | json_lines,
    st.sampled_from([b"", b"\n", b'"}\n', b"PAR1"]),
)


def table() -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["a", None, "b"] * 9}), sink)
    return sink.getvalue()


TABLE = table()


def check_sentence(told: str) -> None:
    assert "\n" not in told
    assert len(told) < 1000
    told.encode("utf-8")  # it can be printed


def check_read(path: pathlib.Path) -> None:
    """All ways to read it end in bytes or in one sentence."""
    ways = (
        lambda: [text for _, text in read_documents(survey(str(path)).files)],
        lambda: [text for _, text in read_documents(survey(str(path.parent)).files)],
        lambda: list(text_blocks(one_file(path))),
    )
    for way in ways:
        told = ""
        try:
            assert all(isinstance(text, bytes) for text in way())
        except ConfigError as error:
            told = str(error)
        check_sentence(told)


@fast
@given(
    content=contents,
    suffix=st.sampled_from(SUFFIXES),
    stored=st.sampled_from(list(COMPRESS)),
    named=st.sampled_from(list(COMPRESS)),
    cut=st.integers(0, 12),
)
def test_any_bytes_under_any_name_are_read_or_refused(content, suffix, stored, named, cut):
    data = COMPRESS[stored](content)
    data = data[: len(data) - cut] if cut < 6 else data
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file" + suffix + named)
        path.write_bytes(data)
        check_read(path)


@fast
@given(place=st.integers(0, len(TABLE) - 1), value=st.integers(0, 255), end=st.booleans())
def test_a_damaged_parquet_file_is_read_or_refused(place, value, end):
    data = bytearray(TABLE)
    data[place] = value
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file.parquet")
        path.write_bytes(data[:place] if end else data)
        check_read(path)


@fast
@given(
    source=st.text(max_size=20)
    | st.binary(max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape"))
)
def test_any_source_is_found_or_refused(source):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if source == "stdlib" or "/" in source or source.startswith("~"):
            return
        with pytest.raises(ConfigError) as error:
            survey(source)
        check_sentence(str(error.value))


@settings(fast, max_examples=12)
@given(
    name=st.binary(min_size=1, max_size=12).filter(lambda b: not set(b"\0/") & set(b)),
    files=st.dictionaries(st.sampled_from(["a.txt", "b.jsonl", "c.gz", "d.json"]), contents),
)
def test_any_folder_makes_batches_or_is_refused(name, files):
    told = ""
    with tempfile.TemporaryDirectory() as root:
        folder = pathlib.Path(root, "x" + os.fsdecode(name))
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        config = DataConfig(source=str(folder), cache=root + "/cache", sequence=2, batch=1)
        try:
            assert next(make_loader(config, "train", align=1))["mask"].any()
        except ConfigError as error:
            told = str(error)
    check_sentence(told)
