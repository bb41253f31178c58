"""One text on disk: opened as UTF-8, whatever compression and encoding it is stored in.

Which files make up a corpus is `sources`; how their text becomes documents is `files`.
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
"""What reading a file raises where it is missing, damaged or not what its name says."""

# UTF-32's mark begins with UTF-16's, so the longer ones come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclasses.dataclass(frozen=True)
class TextFile:
    """One text: a file on disk, or ``data`` that needs no file.

    Attributes:
        name: where it stands in the corpus, the same on every machine.
        path: the file, plain or compressed by its suffix (.gz, .bz2, .xz, .zst).
        data: the text itself, instead of a file.
        encoding: the one that the file's byte order mark names; empty without a mark.
        rows: ``"json"`` or ``"parquet"`` for a file of rows, else empty.
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
            return decoded(open_decompressed(self.path), self.encoding)
        except UNREADABLE as error:
            raise unreadable(self, error) from error

    def digest(self) -> bytes:
        """The sha256 of the bytes as stored (compressed, encoded).

        It also covers how they are read, except for plain text and what the standard library
        decompresses, whose digests are those of miras 0.1.
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
    """The suffix by which a file is decompressed, in lower case; empty if it is plain."""
    suffix = path.suffix.lower()
    return suffix if suffix in _OPENERS else ""


def open_decompressed(path: pathlib.Path) -> IO[bytes]:
    """Opens a file, decompressed by its suffix."""
    return _OPENERS.get(compression(path), open)(path, "rb")


def mark(head: bytes) -> tuple[bytes, str] | None:
    """The byte order mark at the start of a text, and the encoding that it names."""
    return next((found for found in _MARKS if head.startswith(found[0])), None)


def decoded(stream: IO[bytes], encoding: str) -> IO[bytes]:
    """A text with the byte order mark of ``encoding``, as UTF-8 without one."""
    if not encoding:
        return stream
    if encoding == "utf-8":
        stream.read(len(codecs.BOM_UTF8))
        return stream
    return io.BufferedReader(_Utf8(io.TextIOWrapper(stream, encoding=encoding, newline="")))


class _Utf8(io.RawIOBase):
    """A text encoded anew as it is read."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._held = text, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = self._text.read(len(buffer)).encode("utf-8")
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size

    def close(self) -> None:
        self._text.close()
        super().close()


def _zstandard(path: pathlib.Path, mode: str) -> IO[bytes]:
    import pyarrow  # half a second; the standard library reads .zst from Python 3.14 on

    file = pyarrow.PythonFile(open(path, mode), "r")  # noqa: SIM115 (closed with the reader)
    return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))


_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}
