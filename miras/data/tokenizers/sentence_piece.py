"""Tokenizers read from SentencePiece ``.model`` files."""

from __future__ import annotations

import pathlib

import numpy as np

from miras.data.tokenizers.pieces import (
    SPACE,
    PieceTokenizer,
    as_text,
    import_library,
    unreadable_file,
)


class SentencePieceTokenizer(PieceTokenizer):
    """A SentencePiece ``.model``.

    The model normalises text, so decoding returns the normalised text. The
    document start is the model's ``<s>`` where it has one and a new id after the last otherwise.

    Raises:
        ConfigError: the library is missing or the file is not a SentencePiece model.
    """

    def __init__(self, path: pathlib.Path) -> None:
        library = import_library("sentencepiece", path)
        try:
            model = library.SentencePieceProcessor(model_proto=path.read_bytes())
            size = model.vocab_size()
        except (RuntimeError, ValueError, OSError, TypeError) as error:
            raise unreadable_file(path, "SentencePiece '.model'", error) from error
        if size == 0:
            raise unreadable_file(path, "SentencePiece '.model'", "it holds no pieces")
        self._model = model
        bos = model.bos_id()
        super().__init__(path, [self._piece(i) for i in range(size)], bos if bos >= 0 else None)
        first = model.id_to_piece(model.encode("a")[:1])
        self._dummy_prefix = bool(first) and first[0].startswith(SPACE)

    def _piece(self, i: int) -> bytes:
        if self._model.is_control(i) or self._model.is_unused(i):
            return b""
        if self._model.is_unknown(i):
            return self._model.decode([i]).encode("utf-8")
        piece = self._model.id_to_piece(i)
        if self._model.is_byte(i):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(SPACE, " ").encode("utf-8")

    def encode(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of ``text``, int32 [n]; bytes that are not UTF-8 become U+FFFD."""
        return np.asarray(self._model.encode(as_text(text)), np.int32)

    def decode_bytes(self, ids) -> bytes:
        """Returns the pieces' bytes, without the space that the model puts before a text."""
        raw = self._join(ids)
        return raw.removeprefix(b" ") if self._dummy_prefix else raw
