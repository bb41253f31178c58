"""What is read of a file, a folder or a glob, and what is left out and why."""

import bz2
import gzip
import hashlib
import io
import logging
import lzma
import os
import pickle
import sqlite3
import struct
import tarfile
import zipfile

import numpy as np
import pyarrow
import pytest
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter
from pyarrow import feather

from miras.data import DataConfig
from miras.data.text.corpus import open_documents
from miras.data.text.read_report import collect_reports
from miras.data.text.sources import one_file, survey
from miras.data.text.splitting import read_documents, text_blocks
from miras.errors import ConfigError
from miras.runtime.notices import notices
from tests.data.sources_read import reasons, texts, write_rows

TEXT = "Ein Wort, 語, a word.\r\nAnd a line.\n"


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")


def tarred(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())


def database(path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (x)")
    connection.close()


def records(path):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    writer.write(b"text")
    writer.close()


def tfrecord(path):
    # The length 5 and its masked CRC-32C, then the data and theirs, as TensorFlow writes them.
    path.write_bytes(bytes.fromhex("0500000000000000ea b2 04 3e".replace(" ", "")) + b"hello1234")


def arrow(path):
    table = pyarrow.table({"text": ["a"]})
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


CONTAINERS = {
    "zip archive": zipped,
    "gzip file": lambda path: path.write_bytes(gzip.compress(b"text")),
    "bzip2 file": lambda path: path.write_bytes(bz2.compress(b"text")),
    "xz file": lambda path: path.write_bytes(lzma.compress(b"text")),
    "zstandard file": lambda path: path.write_bytes(
        pyarrow.compress(b"text", codec="zstd", asbytes=True)
    ),
    "7z archive": lambda path: path.write_bytes(b"7z\xbc\xaf\x27\x1c\0\4" + bytes(24)),
    "tar archive": tarred,
    "PDF document": lambda path: path.write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"),
    "picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    "SQLite database": database,
    "safetensors file": lambda path: path.write_bytes(
        safetensors.numpy.save({"w": np.zeros(3, np.float32)})
    ),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"a": [1, "text"]})),
    "HDF5 file": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(8)),
    "NumPy array": lambda path: path.write_bytes(b"\x93NUMPY\1\0v\0{'descr': '<f4'"),
    "ArrayRecord file": records,
    "TFRecord file": tfrecord,
    "Arrow file": arrow,
    "Feather file": lambda path: feather.write_feather(
        pyarrow.table({"text": ["a"]}), str(path), version=1
    ),
    "compiled program": lambda path: path.write_bytes(b"\x7fELF\2\1\1" + bytes(9)),
    "unmarked UTF-16LE file": lambda path: path.write_bytes(("text " * 9).encode("utf-16-le")),
    "unmarked UTF-16BE file": lambda path: path.write_bytes(("text " * 9).encode("utf-16-be")),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("compress", [None, gzip.compress], ids=["plain", "gz"])
def test_a_format_without_text_is_an_error_alone_and_counted_in_a_folder(tmp_path, name, compress):
    path = tmp_path / "file.txt"
    CONTAINERS[name](path)
    if compress is not None:
        path.with_name("file.txt.gz").write_bytes(compress(path.read_bytes()))
        path.unlink()
        path = path.with_name("file.txt.gz")
    with pytest.raises(
        ConfigError, match=rf"file\.txt(\.gz)?' is not text but an? {name}: "
    ) as error:
        survey(str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=rf"matches no text file, 1 left out \(1 {name}\); '"):
        survey(str(tmp_path))
    (tmp_path / "real.txt").write_text("text")
    for source in (tmp_path, tmp_path / "*", tmp_path / "**"):
        assert texts(source) == [b"text"]
        assert reasons(source) == {name: 1}


@pytest.mark.parametrize(
    "start",
    ["PK in the box", "BZhello", "ID3 of Quinlan", "GGUF!", "PAR1 and more", "MZ", "II*", "Oggs",
     "FEA1", "GIF87 no", "{\"a\": 1}", "ORC", "%P", "SQLite format 3 is a format", "RIFF raff"],
)  # fmt: skip
def test_text_that_begins_like_another_format_is_text(tmp_path, start):
    text = f"{start}\nand a line\n".encode()
    (tmp_path / "a.txt").write_bytes(text)
    assert texts(tmp_path / "a.txt") == [text]


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, encoding, name):
    mark = "" if encoding in ("utf-8-sig", "utf-16") else "\ufeff"
    stored = (mark + TEXT * 700).encode(encoding)
    path = tmp_path / name
    if name.endswith("gz"):
        stored = gzip.compress(stored)
    elif name.endswith("zst"):
        stored = pyarrow.compress(stored, codec="zstd", asbytes=True)
    path.write_bytes(stored)
    assert b"".join(texts(path)).decode() == TEXT * 700
    (tmp_path / "other.txt").write_text("other")
    assert texts(tmp_path) == [(TEXT * 700).encode(), b"other"]
    assert reasons(tmp_path) == {}


def test_text_that_its_mark_belies_is_an_error_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe" + b"\x00\xd8" * 9)  # surrogates without their other halves
    with pytest.raises(ConfigError, match=r"a\.txt' cannot be read .*decode"):
        survey(str(path))
    (tmp_path / "b.txt").write_text("b")
    assert reasons(tmp_path) == {"binary": 1}


def test_all_that_is_left_out_of_a_folder_is_counted(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text("never counted one by one")
    for name, content in {
        "a.txt": b"a", "sub/b.txt": b"b", ".hidden": b"h", "sub/i.bin": b"\0i", "empty": b"",
        "empty.gz": gzip.compress(b""),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    os.symlink("nowhere", tmp_path / "dead.txt")
    os.mkfifo(tmp_path / "pipe")
    found = survey(str(tmp_path))
    assert found.reading("texts").summary == (
        "texts: 2 files read, 7 left out (2 empty, 2 hidden, 1 binary, 1 broken link, "
        "1 special file)"
    )
    assert {left.name for left in found.left_out} == {
        ".git", ".hidden", "dead.txt", "empty", "empty.gz", "pipe", "sub/i.bin",
    }  # fmt: skip
    assert found.reading("texts").names["empty"] == ["empty", "empty.gz"]
    assert reasons(tmp_path / "*") == {"broken link": 1, "empty": 2, "folder": 1, "special file": 1}


def test_a_file_that_may_not_be_read_is_counted(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("b")
    real = open

    def refusing(path, *args, **kwargs):
        if str(path).endswith("secret.txt"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refusing)  # root may read all
    assert texts(tmp_path) == [b"a"]
    assert reasons(tmp_path) == {"unreadable": 1}
    with pytest.raises(ConfigError, match=r"secret\.txt' cannot be read .*Permission denied"):
        survey(str(tmp_path / "secret.txt"))


def test_links_to_folders_are_followed_and_each_folder_is_read_once(tmp_path):
    for name in ("texts/a", "texts/b/c", "elsewhere/d"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file.txt").write_text(name)
    root = tmp_path / "texts"
    os.symlink(tmp_path / "elsewhere", root / "a" / "out")
    os.symlink(root, tmp_path / "elsewhere" / "back")  # a loop by way of another folder
    os.symlink("..", root / "b" / "up")
    os.symlink("b", root / "0_again")
    found = [
        ("a/file.txt", b"texts/a"),
        ("a/out/d/file.txt", b"elsewhere/d"),
        ("b/c/file.txt", b"texts/b/c"),
    ]
    for source in (root, root / "**", root / "**" / "*.txt"):
        files = survey(str(source)).files
        assert list(read_documents(files)) == found
    assert reasons(root) == {"repeated link": 2, "looping link": 1}
    os.symlink(root, tmp_path / "link")
    assert list(read_documents(survey(str(tmp_path / "link")).files)) == found


def test_a_binary_file_given_by_name_is_read_as_it_is_and_said(tmp_path, caplog):
    (tmp_path / "a.bin").write_bytes(b"\0\1\2")
    assert texts(tmp_path / "a.bin") == [b"\0\1\2"]
    assert "a.bin is binary and is read as bytes" in caplog.text


def test_a_source_that_is_no_file_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source, match in {
        str(tmp_path / "pipe"): "is not a regular file or folder",
        str(tmp_path / ("n" * 300)): "does not exist",
        "~no_such_user_/x": "cannot be a path",
        "a\0b": "cannot be a path|does not exist",
    }.items():
        with pytest.raises(ConfigError, match=match):
            survey(source)


def test_a_json_document_is_text(tmp_path):
    for n, content in enumerate(['{\n  "text": 1\n}\n', '{"name": "a"}\n', '[{"text": "a"}]', "3"]):
        (tmp_path / f"{n}.json").write_text(content)
    assert texts(tmp_path)[:2] == [b'{\n  "text": 1\n}\n', b'{"name": "a"}\n']
    assert len(texts(tmp_path)) == 4


def test_the_identity_of_plain_text_is_as_in_runs_of_the_first_version(tmp_path):
    from miras.data.text.local_text import _corpus_hash

    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n" * 3)
    (tmp_path / "b.json").write_bytes(b'{"a": 1}\n')
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"text"))
    (tmp_path / "d").touch()
    digest = hashlib.sha256(b"1.0.0 65536")
    for path in sorted(tmp_path.iterdir()):
        name = path.name.encode()
        digest.update(struct.pack("<Q", len(name)) + name)
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    assert _corpus_hash(survey(str(tmp_path)).files) == digest.hexdigest()


def test_what_was_read_is_told_once(tmp_path, cache, caplog):
    (tmp_path / "texts").mkdir()
    for n in range(4):
        (tmp_path / "texts" / f"{n}.txt").write_text(f"text {n}" * 9)
    (tmp_path / "texts" / ".h").touch()
    config = DataConfig(source=str(tmp_path / "texts"), cache=cache)
    with collect_reports() as found:
        open_documents(config, "train")
        open_documents(config, "validation")
    (reading,) = found
    assert (reading.read, reading.left_out) == (4, {"hidden": 1})
    assert reading.digest == open_documents(config, "train").fingerprint
    line = f"{tmp_path}/texts: 4 files read, 1 left out (1 hidden)"
    assert line in [record.getMessage() for record in caplog.records]


def test_the_command_line_says_a_line_once(capsys):
    log = logging.getLogger("miras.data.text.read_report")
    with notices():
        for _ in range(2):
            log.warning("texts: 4 files read, %s", "1 left out (1 hidden)")
        log.info("other: 1 file read, none left out")
    log.info("nobody listens")
    said = capsys.readouterr()
    assert said.err == "miras: texts: 4 files read, 1 left out (1 hidden)\n"
    assert said.out == "miras: other: 1 file read, none left out\n"


def test_one_text_is_read_whole_in_any_form(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [{"text": f"line {n}"} for n in range(3)]
    forms = {
        "a.txt": b"line 0\nline 1\nline 2\n",
        "a.txt.gz": gzip.compress(b"line 0\nline 1\nline 2\n"),
        "b.txt": "line 0\nline 1\nline 2\n".encode("utf-16"),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
    for name in ("c.jsonl", "c.jsonl.zst", "c.parquet"):
        write_rows(tmp_path / name, rows)
    for path in sorted(tmp_path.iterdir()):
        assert b"".join(text_blocks(one_file(path))) == b"line 0\nline 1\nline 2\n"
        assert f"{path}: 1 file read, none left out" in caplog.text
    for name, match in {"": "is a directory", "none": "No such file"}.items():
        with pytest.raises(ConfigError, match=match):
            one_file(tmp_path / name)
