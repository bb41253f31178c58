"""Which files make up a corpus, each looked into once, and which are left out of it.

A file given by name is read or answered with an error. In a folder or a glob, what is not text is
left out and counted.
"""

from __future__ import annotations

import codecs
import dataclasses
import glob
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from miras.data.text import read_report
from miras.data.text.folders import LeftOut, Walked, matching, walk
from miras.data.text.formats import HEAD_BYTES, recognise
from miras.data.text.records import JSON_LINES, is_json_lines, lacks_field
from miras.data.text.standard_library import standard_library
from miras.data.text.text_file import (
    UNREADABLE,
    TextFile,
    compression,
    mark,
    open_decompressed,
    unreadable,
)
from miras.errors import ConfigError

_LOG = logging.getLogger(__name__)
_NAMES = 10  # of what is left out for one reason
_PARQUET = b"PAR1"  # how a Parquet file begins and ends


class Found(NamedTuple):
    """A corpus.

    Attributes:
        files: what makes it up, in sorted order; empty files are among them.
        left_out: what is not read, empty files among them.
    """

    files: list[TextFile]
    left_out: list[LeftOut]

    def reading(self, source: str, digest: str = "") -> read_report.Reading:
        """The report of it."""
        empty = sum(left.reason == "empty" for left in self.left_out)
        counted = read_report.count(left.reason for left in self.left_out)
        names: dict[str, list[str]] = {reason: [] for reason in counted}
        for left in self.left_out:
            if len(names[left.reason]) < _NAMES:
                names[left.reason].append(read_report.printable(left.name))
        read = len(self.files) - empty
        return read_report.Reading(
            read_report.printable(source), read, counted, names, digest=digest
        )


def find_files(source: str, field: str = "text") -> list[TextFile]:
    """Lists the texts of ``source`` in sorted order: the files of ``survey``."""
    return survey(source, field).files


def survey(source: str, field: str = "text") -> Found:
    """Finds the texts of ``source``, and what is left out of it.

    Args:
        source: ``"stdlib"``, or a file, folder or glob. Folders are read recursively, through
            links. Hidden, unreadable and binary files (a NUL in the first 8 KiB), and files of
            formats that hold no text, are left out of folders and globs.
        field: the field of rows in JSON lines and Parquet that holds the text.

    Raises:
        ConfigError: nothing is there, it holds no text file, or it is a file of a format that
            holds no text.
    """
    if source == "stdlib":
        return Found(standard_library(), [])
    path = _path(source)
    if os.path.isfile(path):
        return _lone(path, field)
    if os.path.isdir(path):
        root, walked = path, walk(path)
    elif glob.has_magic(source):
        walked = matching(path)
        folders = [file.parent for file in walked.files]
        root = pathlib.Path(os.path.commonpath(folders)) if folders else path
    elif os.path.lexists(path):
        raise ConfigError(
            f"data source {source!r} is no regular file or folder: give a file, a folder or a glob."
        )
    else:
        raise ConfigError(
            f"data source {source!r} does not exist: give a file, a folder, a glob, 'stdlib' or "
            "'tfds:NAME'."
        )
    return _sorted_out(source, root, walked, field)


def one_file(
    source: str | os.PathLike[str], field: str = "text", others: Sequence[LeftOut] = ()
) -> TextFile:
    """A single text given by its path; tells that it is read.

    Args:
        source: the path.
        field: as `survey` takes it.
        others: what is not read in its favour.

    Raises:
        ConfigError: it is no file, or of a format that holds no text.
    """
    path = _path(os.fspath(source))
    if not os.path.isfile(path):
        what = "is a directory" if os.path.isdir(path) else "is no file: No such file"
        raise ConfigError(f"{os.fspath(source)!r} {what}: give the path of a text.")
    files, left_out = _lone(path, field)
    read_report.tell(Found(files, [*left_out, *others]).reading(os.fspath(source)))
    return files[0]


def _lone(path: pathlib.Path, field: str) -> Found:
    file = TextFile(path.name, path, field=field)
    found = _look(file, alone=True)
    if isinstance(found, TextFile):
        return Found([found], [])
    if found.reason != "empty":
        raise ConfigError(found.error)
    return Found([file], [found])


def _path(source: str) -> pathlib.Path:
    try:
        path = pathlib.Path(source).expanduser()
        os.path.lexists(path)
        os.fsencode(path)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"data source {source!r} cannot be a path ({error}): give a file, a folder, a glob, "
            "'stdlib' or 'tfds:NAME'."
        ) from error
    return path


def _sorted_out(source: str, root: pathlib.Path, walked: Walked, field: str) -> Found:
    files, left_out = [], list(walked.left_out)
    for path in walked.files:
        file = TextFile(path.relative_to(root).as_posix(), path, field=field)
        found = _look(file, alone=False)
        if isinstance(found, LeftOut):
            left_out.append(found)
            if found.reason == "empty":  # part of what the corpus is, with nothing to read in it
                files.append(file)
        else:
            files.append(found)
    if not files:
        why = read_report.left_out(read_report.count(left.reason for left in left_out))
        first = next((f"; {left.error}" for left in left_out if left.error), ": give text files.")
        raise ConfigError(
            f"data source {source!r} is an empty corpus: it matches no text file, {why}{first}"
        )
    return Found(files, left_out)


def _look(file: TextFile, alone: bool) -> TextFile | LeftOut:
    """The file with how it is read, or why it is left out."""
    path = file.path
    assert path is not None
    try:
        with open(path, "rb") as stream:
            raw = stream.read(HEAD_BYTES)
            parquet = bool(raw) and path.suffix.lower() == ".parquet"
            if not parquet and raw.startswith(_PARQUET):
                stream.seek(-len(_PARQUET), os.SEEK_END)
                parquet = stream.read() == _PARQUET
    except OSError as error:
        return LeftOut(file.name, "unreadable", str(unreadable(file, error)))
    if parquet:
        return _with_rows(file, "parquet", alone)
    try:
        if compression(path):
            with open_decompressed(path) as stream:
                raw = stream.read(HEAD_BYTES)
        return _as_text(file, raw, alone)
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def _as_text(file: TextFile, head: bytes, alone: bool) -> TextFile | LeftOut:
    """As `_look`, of a file that begins so."""
    path = file.path
    assert path is not None
    if not head:
        return LeftOut(file.name, "empty")
    if marked := mark(head):
        file = dataclasses.replace(file, encoding=marked[1])
        try:
            decoder = codecs.getincrementaldecoder(marked[1])()
            head = decoder.decode(head).encode() if marked[1] != "utf-8" else head[3:]
        except UnicodeError:
            if alone:
                raise
            return LeftOut(file.name, "binary")
    elif found := recognise(head):
        article = "an" if found.name[0] in "aeioAEIOR" else "a"
        error = f"{str(path)!r} is no text but {article} {found.name}: {found.fix}."
        return LeftOut(file.name, found.name, error)
    elif b"\0" in head:
        if not alone:
            return LeftOut(file.name, "binary")
        _LOG.warning("%s is binary, and is read byte by byte", read_report.printable(str(path)))
    suffix = path.with_suffix("").suffix if compression(path) else path.suffix
    lines = suffix.lower() == ".json" and is_json_lines(head, file.field)
    if lines or suffix.lower() in JSON_LINES:
        return _with_rows(file, "json", alone)
    return file


def _with_rows(file: TextFile, rows: str, alone: bool) -> TextFile | LeftOut:
    file = dataclasses.replace(file, rows=rows)
    error = lacks_field(file)
    if error is None:
        return file
    if alone:
        raise error
    return LeftOut(file.name, f"without a field {file.field!r}", str(error))
