"""Tokenizers read from files of SentencePiece and Hugging Face (the extra ``tokenizers``).

Both reduce to a table of the bytes that each id stands for. The libraries are imported only when a
file is opened.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from miras.data.tokenizers.base import Tokenizer
from miras.data.tokenizers.piece_decoder import BYTE_PIECE, PieceDecoder, is_local
from miras.errors import ConfigError

_BOS_NAMES = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>", "[CLS]")
_LINE = "a\n"
_SPACE = "\u2581"  # how both libraries write a space inside a piece


class _PieceTokenizer(Tokenizer):
    """A tokenizer whose ids each stand for fixed bytes.

    ``bos_id=None`` appends a new id for the document start, as the file has none.
    """

    def __init__(self, path: pathlib.Path, pieces: Sequence[bytes], bos_id: int | None) -> None:
        self._pieces = list(pieces)
        if bos_id is None:
            bos_id = len(self._pieces)
            self._pieces.append(b"")
        self.bos_id = bos_id
        self._pieces[bos_id] = b""
        self.vocab_size = len(self._pieces)
        self.byte_lengths = np.array([len(piece) for piece in self._pieces], np.float32)
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()

    def encode_next(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of ``text`` behind a line, whose own are taken away."""
        text = _text(text)
        whole, before = self.encode(_LINE + text), self.encode(_LINE)
        same = len(whole) >= len(before) and bool((whole[: len(before)] == before).all())
        return whole[len(before) :] if same else self.encode(text)

    def _join(self, ids) -> bytes:
        ids = np.asarray(ids, np.int64).reshape(-1).tolist()
        return b"".join(self._pieces[i] for i in ids if 0 <= i < self.vocab_size)


def _text(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", errors="replace")


def _library(name: str, path: pathlib.Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"tokenizer file {str(path)!r} needs the package {name!r}, which is not installed: "
            f"run pip install {name}."
        ) from error


class SentencePieceTokenizer(_PieceTokenizer):
    """A SentencePiece ``.model``.

    Text passes through the model's own normaliser, so decoding gives back the normalised text. The
    document start is the model's ``<s>`` where it has one and a new id after the last otherwise.

    Raises:
        ConfigError: the library is missing or the file is not a SentencePiece model.
    """

    def __init__(self, path: pathlib.Path) -> None:
        library = _library("sentencepiece", path)
        try:
            model = library.SentencePieceProcessor(model_proto=path.read_bytes())
            size = model.vocab_size()
        except (RuntimeError, ValueError, OSError, TypeError) as error:
            raise _undecodable(path, "SentencePiece '.model'", error) from error
        if size == 0:
            raise _undecodable(path, "SentencePiece '.model'", "it holds no pieces")
        self._model = model
        bos = model.bos_id()
        super().__init__(path, [self._piece(i) for i in range(size)], bos if bos >= 0 else None)
        first = model.id_to_piece(model.encode("a")[:1])
        self._dummy_prefix = bool(first) and first[0].startswith(_SPACE)

    def _piece(self, i: int) -> bytes:
        if self._model.is_control(i) or self._model.is_unused(i):
            return b""
        if self._model.is_unknown(i):
            return self._model.decode([i]).encode("utf-8")
        piece = self._model.id_to_piece(i)
        if self._model.is_byte(i):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE, " ").encode("utf-8")

    def encode(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of ``text``, int32 [n]; bytes that are not UTF-8 become U+FFFD."""
        return np.asarray(self._model.encode(_text(text)), np.int32)

    def decode_bytes(self, ids) -> bytes:
        """Returns the pieces' bytes, without the space that the model puts before a text."""
        raw = self._join(ids)
        return raw.removeprefix(b" ") if self._dummy_prefix else raw


class HuggingFaceTokenizer(_PieceTokenizer):
    """A Hugging Face ``tokenizer.json``.

    The document start is the first of ``<s>``, ``<bos>``, ``<|begin_of_text|>``,
    ``<|startoftext|>``, ``<|endoftext|>`` and ``[CLS]`` that is a special token of the file, and a
    new id after the last otherwise. The file's own post-processor (which adds special tokens) is
    not run.

    Raises:
        ConfigError: the library is missing or the file is not a tokenizer.
    """

    def __init__(self, path: pathlib.Path) -> None:
        library = _library("tokenizers", path)
        try:
            text = path.read_text("utf-8")
            spec = json.loads(text)
            model = library.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise _undecodable(path, "Hugging Face tokenizers '.json'", error) from error
        model.no_padding()
        model.no_truncation()
        self._model = model
        kinds = _kinds(spec.get("decoder"))
        self._byte_level = "ByteLevel" in kinds or "ByteLevel" in _kinds(spec.get("pre_tokenizer"))
        vocabulary = model.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise _undecodable(path, "Hugging Face tokenizers '.json'", "its vocabulary is empty")
        added = model.get_added_tokens_decoder()
        pieces = [b""] * (max(vocabulary.values()) + 1)
        alphabet = _byte_alphabet()
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
        return np.asarray(self._model.encode(_text(text), add_special_tokens=False).ids, np.int32)

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
    return token.replace(_SPACE, " ").encode("utf-8")


def _kinds(part: Any) -> set[str]:
    """The ``type`` of a tokenizer.json part and of all parts inside it."""
    if isinstance(part, dict):
        own = {part["type"]} if isinstance(part.get("type"), str) else set()
        return own.union(*map(_kinds, part.values()))
    return set().union(*map(_kinds, part)) if isinstance(part, list) else set()


def _byte_alphabet() -> dict[str, int]:
    """The printable character by which byte-level files write each byte (GPT-2's convention)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {
        **{chr(byte): byte for byte in printable},
        **{chr(256 + n): byte for n, byte in enumerate(others)},
    }


def _undecodable(path: pathlib.Path, kind: str, why: object) -> ConfigError:
    reason = str(why).splitlines()[0] if str(why) else type(why).__name__
    return ConfigError(
        f"tokenizer file {str(path)!r} cannot be read as a {kind} file ({reason}): "
        "give a file that the library itself wrote, or use 'byte'."
    )
