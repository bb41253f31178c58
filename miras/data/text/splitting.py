"""Splits the text of files into documents.

`sources` finds the files, `text_file` opens one, `records` reads files of rows and `fasta`
sequences. `local_text` stores the documents as a data set.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import IO

from miras.data.text import fasta
from miras.data.text.read_report import printable
from miras.data.text.records import rows
from miras.data.text.sources import find_files
from miras.data.text.text_file import UNREADABLE, TextFile, unreadable

__all__ = ["TextFile", "find_files", "piece_bytes", "read_documents", "split_stream", "text_blocks"]

_LOG = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""Size in bytes of the documents into which a long text is split."""

LONG_FILE_BYTES = 16 * 1024 * 1024
"""Larger files are always split, so that every record fits in memory."""


def read_documents(files: list[TextFile]) -> Iterator[tuple[str, bytes]]:
    """Yields (name, text) of every document that is not empty.

    A file is one document, except that a single file, or one larger than ``LONG_FILE_BYTES``, is
    split at newlines into documents of about ``PIECE_BYTES`` (less for a short single file, so that
    some can be held out). Each row of a file of rows is one document, and so is each record of a
    FASTA file, split as such a file into pieces of its letters.

    Raises:
        ConfigError: a file cannot be read or decompressed.
    """
    for file in files:
        try:
            if file.rows == "fasta":
                yield from _sequences_of(file, len(files) == 1)
            else:
                yield from _rows_of(file) if file.rows else _documents_of(file, len(files) == 1)
        except UNREADABLE as error:
            raise unreadable(file, error) from error


def text_blocks(file: TextFile) -> Iterator[bytes]:
    """Yields the text of a file, split as by `split_stream`; each row or record ends in a newline.

    Raises:
        ConfigError: the file cannot be read or decompressed.
    """
    try:
        if file.rows == "fasta":
            yield from _fasta_blocks(file)
        elif file.rows:
            for text in rows(file):
                yield text + b"\n"
        else:
            with file.open() as stream:
                yield from split_stream(stream, PIECE_BYTES)
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def split_stream(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Splits a stream into pieces of ``size`` to ``2 * size`` bytes that end at newlines.

    A piece without a newline in that range ends between two UTF-8 characters instead. The
    concatenated pieces equal the stream.
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
    """The piece size for a single text of ``total`` bytes: 32 pieces, 256 B to ``PIECE_BYTES``."""
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
        for n, piece in enumerate(split_stream(stream, piece_bytes(len(head)))):
            yield f"{file.name}#{n}", piece


def _sequences_of(file: TextFile, alone: bool) -> Iterator[tuple[str, bytes]]:
    most = 32 * PIECE_BYTES
    size = piece_bytes(fasta.letters(file, most)) if alone else PIECE_BYTES
    for piece in fasta.pieces(file, size):
        yield f"{file.name}#{piece.record}#{piece.number}", piece.sequence


def _fasta_blocks(file: TextFile) -> Iterator[bytes]:
    last = 0
    for piece in fasta.pieces(file, PIECE_BYTES):
        if piece.record > last:
            yield b"\n"
        last = piece.record
        yield piece.sequence
    yield b"\n"


def _rows_of(file: TextFile) -> Iterator[tuple[str, bytes]]:
    empty = 0
    for n, text in enumerate(rows(file)):
        if len(text) > LONG_FILE_BYTES:
            for k, piece in enumerate(split_stream(io.BytesIO(text), PIECE_BYTES)):
                yield f"{file.name}#{n}#{k}", piece
        elif text:
            yield f"{file.name}#{n}", text
        else:
            empty += 1
    if empty:
        _LOG.warning("%s: %d rows have no text and are left out", printable(file.name), empty)


def _incomplete(block: bytes) -> int:
    """The number of bytes at the end of ``block`` that begin an incomplete UTF-8 character."""
    for k in range(1, min(4, len(block))):
        byte = block[-k]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return k if k < length else 0
    return 0
