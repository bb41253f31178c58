"""A text file, opened as UTF-8 whatever its compression and encoding.

`sources` finds files; `splitting` makes documents of their text.
"""

from __future__ import annotations

import bz2
import codecs
import dataclasses
import gzip
import hashlib
import io
import lzma
import pathlib
import zlib
from collections.abc import Callable
from typing import IO, Any

from miras.errors import ConfigError

UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeError)
"""Exceptions raised when a file is missing, damaged or not of the format of its suffix."""

# The mark of UTF-32 begins with that of UTF-16, so longer marks come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A text: a file on disk, or ``data`` without a file.

    Attributes:
        name: its path in the corpus, the same on every machine.
        path: the file; its suffix gives the compression (.gz, .bz2, .xz, .zst).
        data: the text, instead of a file.
        encoding: of the byte order mark of the file; empty without a mark.
        rows: ``"json"`` or ``"parquet"`` for a file of rows, ``"fasta"`` for sequences, else empty.
        field: the field of the rows that holds the text.
    """

    name: str
    path: pathlib.Path | None = None
    data: bytes | None = None
    encoding: str = ""
    rows: str = ""
    field: str = "text"

    def open(self) -> IO[bytes]:
        """Opens the text, decompressed and as UTF-8 without a byte order mark.

        Raises:
            ConfigError: the file cannot be opened.
        """
        if self.path is None:
            return io.BytesIO(self.data or b"")
        try:
            return decode_stream(open_decompressed(self.path), self.encoding)
        except UNREADABLE as error:
            raise unreadable(self, error) from error

    def digest(self) -> bytes:
        """The sha256 of the stored bytes, which may be compressed and encoded.

        It includes the encoding and the rows, except for plain text and formats that the standard
        library decompresses, whose digests are those of miras 0.1.
        """
        if self.path is None:
            return hashlib.sha256(self.data or b"").digest()
        try:
            with open(self.path, "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise unreadable(self, error) from error
        if not (self.encoding or self.rows or compression(self.path) == ".zst"):
            return found
        reading = f"{self.encoding} {self.rows} {self.field if self.rows else ''}"
        return hashlib.sha256(found + reading.encode("utf-8", "surrogatepass")).digest()


def unreadable(file: TextFile, error: BaseException) -> ConfigError:
    """The error for a file that cannot be read, or does not decompress or decode."""
    return ConfigError(
        f"{str(file.path or file.name)!r} cannot be read ({error or type(error).__name__}): "
        "repair or remove the file, or check its permissions and suffix."
    )


def compression(path: pathlib.Path) -> str:
    """The suffix of a compressed file, in lower case; empty if it is not compressed."""
    suffix = path.suffix.lower()
    return suffix if suffix in _OPENERS else ""


def open_decompressed(path: pathlib.Path) -> IO[bytes]:
    """Opens a file, decompressed according to its suffix."""
    return _OPENERS.get(compression(path), open)(path, "rb")


def byte_order_mark(head: bytes) -> tuple[bytes, str] | None:
    """The byte order mark at the start of a text, and its encoding."""
    return next((found for found in _MARKS if head.startswith(found[0])), None)


def decode_stream(stream: IO[bytes], encoding: str) -> IO[bytes]:
    """The stream as UTF-8 without a byte order mark.

    Args:
        stream: a text with the byte order mark of `encoding`.
        encoding: as in `TextFile`; empty for UTF-8 without a mark.
    """
    if not encoding:
        return stream
    if encoding == "utf-8":
        stream.read(len(codecs.BOM_UTF8))
        return stream
    return io.BufferedReader(_Utf8(io.TextIOWrapper(stream, encoding=encoding, newline="")))


class _Utf8(io.RawIOBase):
    """A text that is encoded as UTF-8 while it is read."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._pending = text, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._pending:
            self._pending = self._text.read(len(buffer)).encode("utf-8")
        size = min(len(buffer), len(self._pending))
        buffer[:size], self._pending = self._pending[:size], self._pending[size:]
        return size

    def close(self) -> None:
        self._text.close()
        super().close()


def _zstandard(path: pathlib.Path, mode: str) -> IO[bytes]:
    import pyarrow  # takes half a second; the standard library supports .zst since Python 3.14

    file = pyarrow.PythonFile(open(path, mode), "r")  # noqa: SIM115 (closed with the reader)
    return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))


_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}
