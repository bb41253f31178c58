"""Finding files and cutting text."""

import bz2
import gzip
import io
import lzma
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miras.data.text.splitting import (
    PIECE_BYTES,
    find_files,
    piece_bytes,
    read_documents,
    split_stream,
)
from miras.errors import ConfigError


def test_folders_are_read_in_sorted_order_without_hidden_and_binary_files(tmp_path):
    for name, text in {
        "b.txt": b"b", "a/z.md": b"z", "a/c": b"c", ".git/x": b"x", "a/.h": b"h", "i.bin": b"\0i",
        "empty": b"",
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    assert list(read_documents(find_files(str(tmp_path)))) == [
        ("a/c", b"c"),
        ("a/z.md", b"z"),
        ("b.txt", b"b"),
    ]
    names = [file.name for file in find_files(str(tmp_path / "**" / "*.*"))]
    assert names == ["a/z.md", "b.txt"]
    assert [file.name for file in find_files(str(tmp_path / "i.bin"))] == ["i.bin"]


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files_are_read_as_their_text(tmp_path, suffix, compress):
    (tmp_path / f"a.txt.{suffix}").write_bytes(compress(b"packed text"))
    (tmp_path / "b.txt").write_bytes(b"plain")
    assert [text for _, text in read_documents(find_files(str(tmp_path)))] == [
        b"packed text",
        b"plain",
    ]
    (tmp_path / f"a.txt.{suffix}").write_bytes(compress(b"packed text" * 9)[:-9])
    with pytest.raises(ConfigError, match=rf"a\.txt\.{suffix}' cannot be read"):
        list(read_documents(find_files(str(tmp_path))))


@given(
    text=st.binary(max_size=300) | st.text(max_size=120).map(str.encode), size=st.integers(4, 40)
)
def test_pieces_join_to_the_text_and_are_bounded(text, size):
    pieces = list(split_stream(io.BytesIO(text), size))
    assert b"".join(pieces) == text
    assert all(0 < len(piece) <= 2 * size + 3 for piece in pieces)


@given(text=st.text(max_size=120), size=st.integers(4, 40))
def test_pieces_of_utf8_text_are_utf8(text, size):
    assert (
        "".join(piece.decode() for piece in split_stream(io.BytesIO(text.encode()), size)) == text
    )


def test_pieces_end_at_line_ends():
    lines = [b"%d\n" % (n * 7919) for n in range(2000)]
    pieces = list(split_stream(io.BytesIO(b"".join(lines)), 100))
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(100 <= len(piece) <= 120 for piece in pieces[:-1])


def test_a_file_alone_becomes_documents_of_at_most_64_kib_or_so(tmp_path):
    path = tmp_path / "one.txt"
    text = b"a line of a long file\n" * 200_000
    path.write_bytes(text)
    pieces = [piece for _, piece in read_documents(find_files(str(path)))]
    assert b"".join(pieces) == text
    assert {len(piece) // 1024 for piece in pieces[:-1]} == {PIECE_BYTES // 1024}
    path.write_bytes(text[:40_000])
    assert len(list(read_documents(find_files(str(path))))) == 32
    assert piece_bytes(100) == 256


def test_a_file_too_long_for_one_record_is_cut_even_among_others(tmp_path, monkeypatch):
    monkeypatch.setattr("miras.data.text.splitting.LONG_FILE_BYTES", 300_000)
    (tmp_path / "a").write_bytes(b"a short line\n")
    (tmp_path / "b").write_bytes(b"a long line of b\n" * 20_000)
    (tmp_path / "c").write_bytes(b"c" * 300_000)
    documents = list(read_documents(find_files(str(tmp_path))))
    names = [name for name, _ in documents]
    assert names == ["a", *(f"b#{n}" for n in range(len(names) - 2)), "c"]
    assert len(names) > 5
    assert b"".join(text for name, text in documents if name[0] == "b") == (
        b"a long line of b\n" * 20_000
    )


def test_the_standard_library_is_its_sources_and_the_help_topics():
    names = [file.name for file in find_files("stdlib")]
    assert names == sorted(names)
    assert {"json/decoder.py", "os.py", "pydoc_data/topics/lambda"} <= set(names)
    assert "pydoc_data/topics.py" not in names
    folders = {part for name in names for part in Path(name).parts[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    source = Path(sysconfig.get_path("stdlib"), "json/decoder.py").read_bytes()
    documents = dict(read_documents(find_files("stdlib")))
    assert documents["json/decoder.py"] == source
    assert 5e6 < sum(map(len, documents.values())) < 5e7
