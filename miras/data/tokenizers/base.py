"""The tokenizer contract and the built-in byte tokenizer.

Tokenizers read from files are in ``tokenizer_files``; how ids are laid out in rows is ``packing``.
"""

from __future__ import annotations

import abc

import numpy as np

from miras.errors import ConfigError
from miras.runtime.files import expanded


class Tokenizer(abc.ABC):
    """Turns text into ids and back.

    To add one: set the four attributes in the constructor and write ``encode`` and
    ``decode_bytes``.

    Attributes:
        vocab_size: number of ids, ``bos_id`` included; ids lie in [0, vocab_size).
        bos_id: the id put before every document; ``encode`` never adds it.
        byte_lengths: float32 [vocab_size], the bytes of text each id stands for; 0 for ``bos_id``
            and every other control id. Bits per byte divide by these.
        fingerprint: a string that differs between tokenizers that encode differently.
        local: whether the bytes that an id adds to a text depend on the id before it and on
            whether something that can be seen stands before it, and on nothing else. Text is then
            shown as it is generated; otherwise at its end.
    """

    local: bool = True
    vocab_size: int
    bos_id: int
    byte_lengths: np.ndarray
    fingerprint: str

    @abc.abstractmethod
    def encode(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of ``text``, int32 [n]; no document start is added."""

    def encode_next(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of ``text`` after other text, as ``encode``.

        Without the space that some tokenizers put before a text.
        """
        return self.encode(text)

    @abc.abstractmethod
    def decode_bytes(self, ids) -> bytes:
        """Returns the text of ``ids`` as bytes; control ids stand for nothing."""

    def decode(self, ids) -> str:
        """Returns the text of ``ids``; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


class ByteTokenizer(Tokenizer):
    """Ids 0..255 are the bytes and 256 starts a document; every input round-trips exactly."""

    def __init__(self) -> None:
        self.vocab_size = 257
        self.bos_id = 256
        self.byte_lengths = np.append(np.ones(256, np.float32), np.float32(0))
        self.fingerprint = "byte"

    def encode(self, text: bytes | str) -> np.ndarray:
        """Returns the bytes of ``text`` (UTF-8 if a string), int32 [n]."""
        raw = text.encode("utf-8") if isinstance(text, str) else text
        return np.frombuffer(raw, np.uint8).astype(np.int32)

    def decode_bytes(self, ids) -> bytes:
        """Returns the bytes; ids outside 0..255 are dropped."""
        ids = np.asarray(ids, np.int64).reshape(-1)
        return ids[(ids >= 0) & (ids < 256)].astype(np.uint8).tobytes()


def make_tokenizer(spec: str) -> Tokenizer:
    """Returns the tokenizer that ``spec`` names.

    Args:
        spec: ``"byte"``, the path of a SentencePiece ``.model``, or the path of a Hugging Face
            ``tokenizer.json``.

    Raises:
        ConfigError: the file is missing, is of neither kind, cannot be read, or its library is not
            installed.
    """
    if spec == "byte":
        return ByteTokenizer()
    # Imported here because the two libraries behind it are optional.
    from miras.data.tokenizers import tokenizer_files

    path = expanded(spec)
    loaders = {
        ".model": tokenizer_files.SentencePieceTokenizer,
        ".json": tokenizer_files.HuggingFaceTokenizer,
    }
    if path.suffix not in loaders:
        raise ConfigError(
            f"tokenizer {spec!r} is not known: give 'byte', the path of a SentencePiece '.model' "
            "file, or the path of a Hugging Face tokenizers '.json' file."
        )
    if not path.is_file():
        raise ConfigError(f"tokenizer file {spec!r} does not exist: check the path, or use 'byte'.")
    return loaders[path.suffix](path)
