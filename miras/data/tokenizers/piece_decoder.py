"""Decodes the pieces of a tokenizer.json exactly, including the bytes of byte fallback."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_PLACEHOLDERS = range(0x10FE00, 0xF0000, -256)  # private-use characters that a file does not use
_EACH_PIECE = {"ByteFallback", "WordPiece", "BPEDecoder", "Metaspace", "Replace", "Strip"}


class PieceDecoder:
    """Decodes ids with a decoder of the library.

    The byte fallback of the library writes U+FFFD for every byte of an invalid UTF-8 sequence, so
    that a character whose bytes arrive one at a time is lost. This class passes each byte through
    the decoder as a placeholder character.

    Args:
        decoder: of the library; None separates pieces by spaces.
        vocabulary: the id of each piece that has text.
        fallback: whether pieces such as ``<0x0A>`` are bytes.
    """

    def __init__(self, decoder: Any, vocabulary: Mapping[str, int], fallback: bool) -> None:
        self._decoder = decoder
        used = set(itertools.chain.from_iterable(vocabulary)) if fallback else set()
        free = (n for n in _PLACEHOLDERS if not any(chr(n + byte) in used for byte in range(256)))
        first = next(free)
        self._bytes = {first + byte: 0xDC00 + byte for byte in range(0x80, 256)}
        self._pieces = {}
        for piece, i in vocabulary.items():
            if fallback and (match := BYTE_PIECE.fullmatch(piece)):
                byte = int(match[1], 16)
                piece = chr(byte) if byte < 0x80 else chr(first + byte)
            self._pieces[i] = piece

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes of the text; ids without text are skipped."""
        pieces = [self._pieces[i] for i in ids if i in self._pieces]
        text = " ".join(pieces) if self._decoder is None else self._decoder.decode(pieces)
        return text.translate(self._bytes).encode("utf-8", "surrogateescape")


def is_local(decoder: Any) -> bool:
    """Whether the text of a piece depends only on the previous piece and on its position.

    Args:
        decoder: the section of a tokenizer.json.
    """
    if decoder is None:
        return True
    if not isinstance(decoder, dict):
        return False
    parts = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
    fused = False
    for part in parts:
        kind = part.get("type")
        if kind == "Fuse":
            fused = True
        elif not fused:
            if kind not in _EACH_PIECE:
                return False
        elif not _each_character(part):
            return False
    return True


def _each_character(part: Mapping[str, Any]) -> bool:
    """Whether a decoder of the whole text depends only on single characters and its start."""
    if part.get("type") == "Replace":
        pattern = part.get("pattern")
        return isinstance(pattern, dict) and len(pattern.get("String", "")) == 1
    return part.get("type") == "Strip" and part.get("stop") == 0
