"""Documents as tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from miras.data.tokenizers.base import Tokenizer


class TokenizedDocument(NamedTuple):
    """A document after tokenization.

    Attributes:
        tokens: int32 [n + 1], the document start and the n ids of the text.
        byte_lengths: float32 [n], bytes of text of each of the n ids.
    """

    tokens: np.ndarray
    byte_lengths: np.ndarray


def tokenize(text: bytes, tokenizer: Tokenizer) -> TokenizedDocument:
    """Returns the document start and the ids of a document, with the bytes of each id."""
    ids = tokenizer.encode(text)
    lengths = tokenizer.byte_lengths[ids]
    total = lengths.sum(dtype=np.float64)
    if total not in (0, len(text)):
        # Tokenizers may normalise text or add a space: scale to the true size for bits per byte.
        lengths = (lengths * (len(text) / total)).astype(np.float32)
    return TokenizedDocument(np.append(np.int32(tokenizer.bos_id), ids), lengths)
