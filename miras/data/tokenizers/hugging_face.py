"""Tokenizers read from Hugging Face ``tokenizer.json`` files."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

from miras.data.tokenizers.piece_decoder import BYTE_PIECE, PieceDecoder, is_local
from miras.data.tokenizers.pieces import (
    SPACE,
    PieceTokenizer,
    as_text,
    import_library,
    unreadable_file,
)

_FORMAT = "Hugging Face tokenizers '.json'"
_BOS_NAMES = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>", "[CLS]")


class HuggingFaceTokenizer(PieceTokenizer):
    """A Hugging Face ``tokenizer.json``.

    The document start is the first of ``<s>``, ``<bos>``, ``<|begin_of_text|>``,
    ``<|startoftext|>``, ``<|endoftext|>`` and ``[CLS]`` that is a special token of the file, and a
    new id after the last otherwise. The file's own post-processor (which adds special tokens) is
    not run.

    Raises:
        ConfigError: the library is missing or the file is not a tokenizer.
    """

    def __init__(self, path: pathlib.Path) -> None:
        library = import_library("tokenizers", path)
        try:
            text = path.read_text("utf-8")
            spec = json.loads(text)
            model = library.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise unreadable_file(path, _FORMAT, error) from error
        model.no_padding()
        model.no_truncation()
        self._model = model
        kinds = _kinds(spec.get("decoder"))
        self._byte_level = "ByteLevel" in kinds or "ByteLevel" in _kinds(spec.get("pre_tokenizer"))
        vocabulary = model.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise unreadable_file(
                path, "Hugging Face tokenizers '.json'", "its vocabulary is empty"
            )
        added = model.get_added_tokens_decoder()
        pieces = [b""] * (max(vocabulary.values()) + 1)
        alphabet = byte_alphabet()
        for token, i in vocabulary.items():
            if i in added:
                pieces[i] = b"" if added[i].special else token.encode("utf-8")
            elif self._byte_level:
                pieces[i] = bytes(alphabet[c] for c in token if c in alphabet)
            else:
                pieces[i] = _plain_piece(token, kinds)
        special = {added[i].content: i for i in added if added[i].special}
        bos = next((special[name] for name in _BOS_NAMES if name in special), None)
        super().__init__(path, pieces, bos)
        fallback = "ByteFallback" in kinds or _fallback(spec.get("model"))
        shown = {token: i for token, i in vocabulary.items() if token not in special}
        self._pieces_decoder = PieceDecoder(model.decoder, shown, fallback)
        self.local = self._byte_level or is_local(spec.get("decoder"))

    def encode(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of ``text``, int32 [n]; bytes that are not UTF-8 become U+FFFD."""
        return np.asarray(self._model.encode(as_text(text), add_special_tokens=False).ids, np.int32)

    def decode_bytes(self, ids) -> bytes:
        """Returns the text's bytes: exact for byte-level files, by the file's decoder otherwise.

        Bytes that byte fallback wrote stay as they are, whether they are UTF-8 or not.
        """
        if self._byte_level:
            return self._join(ids)
        return self._pieces_decoder.decode([int(i) for i in np.asarray(ids).reshape(-1)])


def _fallback(model: Any) -> bool:
    return isinstance(model, dict) and bool(model.get("byte_fallback"))


def _plain_piece(token: str, kinds: set[str]) -> bytes:
    if match := BYTE_PIECE.fullmatch(token):
        return bytes([int(match[1], 16)])
    if "WordPiece" in kinds:
        return (token[2:] if token.startswith("##") else " " + token).encode("utf-8")
    if "BPEDecoder" in kinds:
        token = token.replace("</w>", " ")
    return token.replace(SPACE, " ").encode("utf-8")


def _kinds(part: Any) -> set[str]:
    """The ``type`` of a tokenizer.json part and of all parts inside it."""
    if isinstance(part, dict):
        own = {part["type"]} if isinstance(part.get("type"), str) else set()
        return own.union(*map(_kinds, part.values()))
    return set().union(*map(_kinds, part)) if isinstance(part, list) else set()


def byte_alphabet() -> dict[str, int]:
    """The printable character by which byte-level files write each byte (GPT-2's convention)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {
        **{chr(byte): byte for byte in printable},
        **{chr(256 + n): byte for n, byte in enumerate(others)},
    }
