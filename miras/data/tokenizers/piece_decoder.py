"""How a tokenizer.json's own decoder joins pieces, with the bytes of byte fallback kept exactly."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_STAND_INS = range(0x10FE00, 0xF0000, -256)  # private characters, of which a file uses none
_EACH_PIECE = {"ByteFallback", "WordPiece", "BPEDecoder", "Metaspace", "Replace", "Strip"}


class PieceDecoder:
    """Decodes ids by a decoder of the library.

    The library's byte fallback writes U+FFFD for every byte of a run that is not UTF-8 as a whole,
    so that a character whose bytes come one by one is lost. Here each byte piece passes through the
    decoder as one character that stands for it.

    Args:
        decoder: the library's, or None: pieces are then separated by spaces.
        vocabulary: the id of each piece that stands for text.
        fallback: whether pieces such as ``<0x0A>`` are bytes.
    """

    def __init__(self, decoder: Any, vocabulary: Mapping[str, int], fallback: bool) -> None:
        self._decoder = decoder
        used = set(itertools.chain.from_iterable(vocabulary)) if fallback else set()
        free = (n for n in _STAND_INS if not any(chr(n + byte) in used for byte in range(256)))
        first = next(free)
        self._bytes = {first + byte: 0xDC00 + byte for byte in range(0x80, 256)}
        self._pieces = {}
        for piece, i in vocabulary.items():
            if fallback and (match := BYTE_PIECE.fullmatch(piece)):
                byte = int(match[1], 16)
                piece = chr(byte) if byte < 0x80 else chr(first + byte)
            self._pieces[i] = piece

    def decode(self, ids: Iterable[int]) -> bytes:
        """The text's bytes; ids that stand for no text are skipped."""
        pieces = [self._pieces[i] for i in ids if i in self._pieces]
        text = " ".join(pieces) if self._decoder is None else self._decoder.decode(pieces)
        return text.translate(self._bytes).encode("utf-8", "surrogateescape")


def is_local(decoder: Any) -> bool:
    """Whether what a piece adds to a text depends on the piece before it and on its place alone.

    Args:
        decoder: the part of a tokenizer.json.
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
    """Whether a decoder of the whole text looks at single characters and the text's beginning."""
    if part.get("type") == "Replace":
        pattern = part.get("pattern")
        return isinstance(pattern, dict) and len(pattern.get("String", "")) == 1
    return part.get("type") == "Strip" and part.get("stop") == 0
