"""The sequences of FASTA files, in pieces.

`sources` recognises the files; `splitting` makes documents of the pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from miras.data.text.text_file import TextFile

SUFFIXES = (".fa", ".fasta", ".fna", ".ffn", ".frn", ".faa", ".fas")
"""Suffixes of FASTA; such a file is read as text unless it starts with a header line."""


class RecordPiece(NamedTuple):
    """A part of the sequence of a record.

    Attributes:
        record: number of the record in its file, from 0.
        number: of the piece in its record, from 0.
        sequence: letters as stored, without line ends.
    """

    record: int
    number: int
    sequence: bytes


def is_fasta(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a header line."""
    return head.lstrip().startswith(b">")


def pieces(file: TextFile, size: int) -> Iterator[RecordPiece]:
    """Yields the sequences of all records, cut into pieces of `size` letters, the last one shorter.

    Header lines (``>``) and comments (``;``) are left out; records without a sequence have no
    piece.
    """
    record, number, rest = -1, 0, bytearray()
    with file.open() as stream:
        for line in stream:
            if line.startswith(b">"):
                if rest:
                    yield RecordPiece(record, number, bytes(rest))
                record, number, rest = record + 1, 0, bytearray()
            elif not line.startswith(b";"):
                rest += b"".join(line.split())
                cuts = range(0, len(rest) - size, size)
                for start in cuts:
                    yield RecordPiece(record, number, bytes(rest[start : start + size]))
                    number += 1
                del rest[: len(cuts) * size]
    if rest:
        yield RecordPiece(record, number, bytes(rest))


def letters(file: TextFile, most: int) -> int:
    """The number of letters of all sequences; counting stops above `most`."""
    total = 0
    for piece in pieces(file, 1 << 16):
        total += len(piece.sequence)
        if total > most:
            break
    return total
