"""Overlapping words of nucleotides as tokens.

A sequence of n nucleotides has n - k + 1 words of k. With the ids s_t of `nucleotide`,

    word_t = sum_{i < k} s_{t+i} 4^(k-1-i),

and 4^k for all words with an N; 4^k + 1 starts a document.
"""

from __future__ import annotations

import numpy as np

_N = 4


def vocabulary(k: int) -> int:
    """The number of ids."""
    return 4**k + 2


def start(k: int) -> int:
    """The id that starts a document."""
    return 4**k + 1


def encode(ids: np.ndarray, k: int) -> np.ndarray:
    """The words of nucleotides.

    Args:
        ids: int32 [n], of `nucleotide`.
        k: the length of a word, >= 1.

    Returns:
        int32 [n - k + 1], empty if n < k.
    """
    count = max(len(ids) - k + 1, 0)
    found = np.zeros(count, np.int32)
    unknown = np.zeros(count, bool)
    for i in range(k):
        letters = ids[i : i + count]
        found = 4 * found + np.minimum(letters, _N - 1)
        unknown |= letters >= _N
    return np.where(unknown, np.int32(4**k), found).astype(np.int32)
