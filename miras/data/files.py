"""Which files make up a corpus, and their text cut into documents.

Files only: the prepared data set that keeps the documents is ``local_text``.
"""

from __future__ import annotations

import bz2
import dataclasses
import glob
import gzip
import hashlib
import io
import lzma
import os
import pathlib
import sysconfig
import zlib
from collections.abc import Iterator
from typing import IO

from miras.errors import ConfigError

PIECE_BYTES = 64 * 1024
"""Size of the documents that a long text is cut into, in bytes."""

LONG_FILE_BYTES = 16 * 1024 * 1024
"""A file beyond this is cut even where there are others, so that no record outgrows memory."""

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)
_NOT_SOURCES = frozenset(
    ("__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests")
)


@dataclasses.dataclass(frozen=True)
class TextFile:
    """One text: a file on disk, or ``data`` that needs no file.

    Attributes:
        name: where it stands in the corpus, the same on every machine.
        path: the file, plain or compressed by its suffix (.gz, .bz2, .xz).
        data: the text itself, instead of a file.
    """

    name: str
    path: pathlib.Path | None = None
    data: bytes | None = None

    def open(self) -> IO[bytes]:
        """Opens the text, decompressed, for reading bytes.

        Raises:
            ConfigError: the file cannot be opened.
        """
        if self.path is None:
            return io.BytesIO(self.data or b"")
        try:
            return _OPENERS.get(self.path.suffix, open)(self.path, "rb")
        except _UNREADABLE as error:
            raise unreadable(self, error) from error

    def digest(self) -> bytes:
        """The sha256 of the bytes as stored (a compressed file is not decompressed)."""
        if self.path is None:
            return hashlib.sha256(self.data or b"").digest()
        try:
            with open(self.path, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise unreadable(self, error) from error


def unreadable(file: TextFile, error: BaseException) -> ConfigError:
    """The error for a file that cannot be read, or does not decompress."""
    return ConfigError(
        f"{str(file.path or file.name)!r} cannot be read ({error or type(error).__name__}): "
        "repair or remove the file, or check its permissions and suffix."
    )


def find_files(source: str) -> list[TextFile]:
    """Lists the texts of ``source`` in sorted order.

    Args:
        source: ``"stdlib"``, or a file, folder or glob. Folders are read recursively; hidden and
            binary files (a NUL in the first 8 KiB) are left out of folders and globs.

    Raises:
        ConfigError: nothing is there, or it holds no text file.
    """
    if source == "stdlib":
        return _stdlib()
    path = pathlib.Path(source).expanduser()
    if path.is_file():
        return [TextFile(path.name, path)]
    if path.is_dir():
        root, found = path, _walk(path)
    elif glob.has_magic(source):
        found = [
            pathlib.Path(match)
            for match in glob.glob(str(path), recursive=True)
            if os.path.isfile(match)
        ]
        root = pathlib.Path(os.path.commonpath([p.parent for p in found])) if found else path
    else:
        raise ConfigError(
            f"data source {source!r} does not exist: give a file, a folder, a glob, 'stdlib' or "
            "'tfds:NAME'."
        )
    files = [TextFile(p.relative_to(root).as_posix(), p) for p in sorted(found)]
    files = [file for file in files if not _is_binary(file)]
    if not files:
        raise ConfigError(
            f"data source {source!r} is an empty corpus: it matches no text file (hidden and "
            "binary files do not count)."
        )
    return files


def read_documents(files: list[TextFile]) -> Iterator[tuple[str, bytes]]:
    """Yields (name, text) of every document; empty ones are left out.

    A file is one document, except that a file alone, or one beyond ``LONG_FILE_BYTES``, is cut at
    line ends into documents of about ``PIECE_BYTES`` (less for a short file alone, so that some
    can be held out).

    Raises:
        ConfigError: a file cannot be read or decompressed.
    """
    for file in files:
        try:
            yield from _documents_of(file, alone=len(files) == 1)
        except _UNREADABLE as error:
            raise unreadable(file, error) from error


def cut(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Cuts a stream into pieces of ``size`` to ``2 * size`` bytes that end at line ends.

    A piece without a line end in that range ends between two UTF-8 characters instead. The pieces
    joined are the stream.
    """
    rest = b""
    while block := stream.read(size):
        block = rest + block
        if not block.endswith(b"\n"):
            block += stream.readline(size)
        held = 0 if block.endswith(b"\n") else _incomplete(block)
        block, rest = block[: len(block) - held], block[len(block) - held :]
        yield block
    if rest:
        yield rest


def piece_bytes(total: int) -> int:
    """The piece size for a lone text of ``total`` bytes: 32 pieces, 256 B to ``PIECE_BYTES``."""
    return min(PIECE_BYTES, max(256, total // 32))


def _documents_of(file: TextFile, alone: bool) -> Iterator[tuple[str, bytes]]:
    with file.open() as stream:
        limit = 32 * PIECE_BYTES if alone else LONG_FILE_BYTES
        head = stream.read(limit + 1)
        if not alone and len(head) <= limit:
            if head:
                yield file.name, head
            return
    with file.open() as stream:
        for n, piece in enumerate(cut(stream, piece_bytes(len(head)))):
            yield f"{file.name}#{n}", piece


def _incomplete(block: bytes) -> int:
    """How many last bytes of ``block`` begin a UTF-8 character that ends after it."""
    for k in range(1, min(4, len(block))):
        byte = block[-k]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return k if k < length else 0
    return 0


def _walk(
    root: pathlib.Path, suffix: str = "", without: frozenset[str] = frozenset()
) -> list[pathlib.Path]:
    """Every file under ``root`` that is not hidden, outside folders named in ``without``."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in without]
        found += [
            pathlib.Path(folder, name)
            for name in names
            if name.endswith(suffix) and not name.startswith(".")
        ]
    return [path for path in found if path.is_file()]


def _is_binary(file: TextFile) -> bool:
    try:
        with file.open() as stream:
            return b"\0" in stream.read(8192)
    except _UNREADABLE as error:
        raise unreadable(file, error) from error


def _stdlib() -> list[TextFile]:
    """The standard library's own sources, then the help topics of ``pydoc_data.topics``."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    files = []
    for path in _walk(root, ".py", _NOT_SOURCES):
        name = path.relative_to(root)
        # Written by the build for one machine; and the topics, which come one by one below.
        if name.name.startswith("_sysconfigdata") or name.parts == ("pydoc_data", "topics.py"):
            continue
        files.append(TextFile(name.as_posix(), path))
    if not files:
        raise ConfigError(
            f"data source 'stdlib' is an empty corpus, as {str(root)!r} holds no Python sources: "
            "give a file, a folder or a glob."
        )
    from pydoc_data.topics import topics  # half a megabyte, so only when asked for

    files += [
        TextFile(f"pydoc_data/topics/{name}", data=text.encode("utf-8"))
        for name, text in topics.items()
    ]
    return sorted(files, key=lambda file: file.name)
