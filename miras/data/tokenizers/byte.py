"""The built-in tokenizer: one id per byte."""

from __future__ import annotations

import numpy as np

from miras.data.tokenizers.base import Tokenizer


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
