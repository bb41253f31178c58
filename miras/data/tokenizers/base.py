"""The contract of a tokenizer; each tokenizer has a file of its own.

`make_tokenizer` chooses one by name; `miras.data.packing` arranges ids in rows.
"""

from __future__ import annotations

import abc

import numpy as np


class Tokenizer(abc.ABC):
    """Turns text into ids and back.

    To add one: set the four attributes in the constructor and write ``encode`` and
    ``decode_bytes``.

    Attributes:
        vocab_size: number of ids, ``bos_id`` included; ids lie in [0, vocab_size).
        bos_id: the id put before every document; ``encode`` never adds it.
        byte_lengths: float32 [vocab_size], bytes of text that each id represents; 0 for ``bos_id``
            and every other control id. Bits per byte divide by these.
        fingerprint: a string that is unique to the encoding.
        local: whether the bytes that an id adds to a text depend only on the previous id and on
            whether any visible text precedes it. Text is then shown as it is generated, otherwise
            when it is complete.
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
        """Returns the ids of ``text`` as a continuation of other text, int32 [n].

        Unlike ``encode``, it omits the space that some tokenizers insert before a text.
        """
        return self.encode(text)

    @abc.abstractmethod
    def decode_bytes(self, ids) -> bytes:
        """Returns the text of ``ids`` as bytes; control ids have no text."""

    def decode(self, ids) -> str:
        """Returns the text of ``ids``; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")
