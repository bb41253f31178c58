"""Finds the files of a source, and checks that they are text.

A file that is named itself is read or causes an error. In a folder or a glob, files that are not
text are left out and counted.
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

from miras.data.text import fasta, read_report
from miras.data.text.folders import FileListing, LeftOut, matching, walk
from miras.data.text.formats import HEAD_BYTES, recognise
from miras.data.text.records import JSON_LINES, is_json_lines, lacks_field
from miras.data.text.standard_library import standard_library
from miras.data.text.text_file import (
    UNREADABLE,
    TextFile,
    byte_order_mark,
    compression,
    open_decompressed,
    unreadable,
)
from miras.errors import ConfigError

_LOG = logging.getLogger(__name__)
_NAMES = 10  # listed files for each reason
_PARQUET = b"PAR1"  # the first and the last bytes of a Parquet file


class SourceFiles(NamedTuple):
    """The files of a source.

    Attributes:
        files: in sorted order, including empty files.
        left_out: files that are not read, including empty files.
    """

    files: list[TextFile]
    left_out: list[LeftOut]

    def reading(self, source: str, digest: str = "") -> read_report.ReadReport:
        """The report of these files."""
        empty = sum(left.reason == "empty" for left in self.left_out)
        counted = read_report.count(left.reason for left in self.left_out)
        names: dict[str, list[str]] = {reason: [] for reason in counted}
        for left in self.left_out:
            if len(names[left.reason]) < _NAMES:
                names[left.reason].append(read_report.printable(left.name))
        read = len(self.files) - empty
        return read_report.ReadReport(
            read_report.printable(source), read, counted, names, digest=digest
        )


def find_files(source: str, field: str = "text") -> list[TextFile]:
    """The files of ``source`` in sorted order, as of ``survey``."""
    return survey(source, field).files


def survey(source: str, field: str = "text") -> SourceFiles:
    """Finds the files of ``source`` and those that are left out.

    Args:
        source: ``"stdlib"``, or a file, folder or glob. Folders are read recursively and links are
            followed. In folders and globs, hidden, unreadable and binary files (a NUL in the first
            8 KiB) and files of other formats than text are left out.
        field: the field of rows in JSON lines and Parquet that holds the text.

    Raises:
        ConfigError: the source does not exist, holds no text file, or is a file of another format.
    """
    if source == "stdlib":
        return SourceFiles(standard_library(), [])
    path = _path(source)
    if os.path.isfile(path):
        return _single_file(path, field)
    if os.path.isdir(path):
        root, walked = path, walk(path)
    elif glob.has_magic(source):
        walked = matching(path)
        folders = [file.parent for file in walked.files]
        root = pathlib.Path(os.path.commonpath(folders)) if folders else path
    elif os.path.lexists(path):
        raise ConfigError(
            f"data source {source!r} is not a regular file or folder: give a file, a folder "
            "or a glob."
        )
    else:
        raise ConfigError(
            f"data source {source!r} does not exist: give a file, a folder, a glob, 'stdlib' or "
            "'tfds:NAME'."
        )
    return _classify(source, root, walked, field)


def one_file(
    source: str | os.PathLike[str], field: str = "text", others: Sequence[LeftOut] = ()
) -> TextFile:
    """The text file at a path; reports that it is read.

    Args:
        source: the path.
        field: as in `survey`.
        others: alternatives that are left out.

    Raises:
        ConfigError: it is not a file, or is of another format than text.
    """
    path = _path(os.fspath(source))
    if not os.path.isfile(path):
        what = "is a directory" if os.path.isdir(path) else "is not a file: No such file"
        raise ConfigError(f"{os.fspath(source)!r} {what}: give the path of a text.")
    files, left_out = _single_file(path, field)
    read_report.report(SourceFiles(files, [*left_out, *others]).reading(os.fspath(source)))
    return files[0]


def _single_file(path: pathlib.Path, field: str) -> SourceFiles:
    file = TextFile(path.name, path, field=field)
    found = _inspect(file, alone=True)
    if isinstance(found, TextFile):
        return SourceFiles([found], [])
    if found.reason != "empty":
        raise ConfigError(found.error)
    return SourceFiles([file], [found])


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


def _classify(source: str, root: pathlib.Path, walked: FileListing, field: str) -> SourceFiles:
    files, left_out = [], list(walked.left_out)
    for path in walked.files:
        file = TextFile(path.relative_to(root).as_posix(), path, field=field)
        found = _inspect(file, alone=False)
        if isinstance(found, LeftOut):
            left_out.append(found)
            if found.reason == "empty":  # an empty file is part of the corpus
                files.append(file)
        else:
            files.append(found)
    if not files:
        why = read_report.left_out(read_report.count(left.reason for left in left_out))
        first = next((f"; {left.error}" for left in left_out if left.error), ": give text files.")
        raise ConfigError(
            f"data source {source!r} is an empty corpus: it matches no text file, {why}{first}"
        )
    return SourceFiles(files, left_out)


def _inspect(file: TextFile, alone: bool) -> TextFile | LeftOut:
    """The file with its format, or the reason why it is left out."""
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
    """As `_look`, for a file with these first bytes."""
    path = file.path
    assert path is not None
    if not head:
        return LeftOut(file.name, "empty")
    if marked := byte_order_mark(head):
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
        error = f"{str(path)!r} is not text but {article} {found.name}: {found.fix}."
        return LeftOut(file.name, found.name, error)
    elif b"\0" in head:
        if not alone:
            return LeftOut(file.name, "binary")
        _LOG.warning("%s is binary and is read as bytes", read_report.printable(str(path)))
    suffix = path.with_suffix("").suffix if compression(path) else path.suffix
    if suffix.lower() in fasta.SUFFIXES and fasta.is_fasta(head):
        return dataclasses.replace(file, rows="fasta")
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
