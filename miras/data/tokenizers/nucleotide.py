"""The built-in tokenizer of DNA and RNA: one id per nucleotide."""

from __future__ import annotations

import numpy as np

from miras.data.tokenizers.base import Tokenizer
from miras.errors import ConfigError

_LETTERS = b"ACGTN"
_N, _SKIPPED, _ILLEGAL = 4, -1, -2


def _table() -> np.ndarray:
    """The id of each byte; `_SKIPPED` and `_ILLEGAL` for those without one."""
    table = np.full(256, _ILLEGAL, np.int32)
    table[np.frombuffer(b" \t\r\n", np.uint8)] = _SKIPPED
    ids = dict.fromkeys(b"RYSWKMBDHV", _N) | {ord("U"): _LETTERS.index(b"T")}
    ids |= {letter: n for n, letter in enumerate(_LETTERS)}
    for letter, n in ids.items():
        table[[letter, ord(chr(letter).lower())]] = n
    return table


_TABLE = _table()


class NucleotideTokenizer(Tokenizer):
    """Ids 0..4 are A, C, G, T and N, and 5 starts a document.

    Lower case, by which genomes mark repeats, is read as upper case, and U as T. The other letters
    of IUPAC's code (R, Y, S, W, K, M, B, D, H, V) stand for several nucleotides, and are read as N.
    Spaces, tabs and line ends are skipped.
    """

    def __init__(self) -> None:
        self.vocab_size = 6
        self.bos_id = 5
        self.byte_lengths = np.array([1, 1, 1, 1, 1, 0], np.float32)
        self.fingerprint = "nucleotide"

    def encode(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of the nucleotides of ``text``, int32 [n].

        Raises:
            ConfigError: a letter is none of the code.
        """
        raw = text.encode("utf-8") if isinstance(text, str) else text
        ids = _TABLE[np.frombuffer(raw, np.uint8)]
        if np.any(ids == _ILLEGAL):
            place = int(np.argmax(ids == _ILLEGAL))
            raise ConfigError(
                f"{_letter(raw, place)!r} at position {place} of {_shown(raw)} is no nucleotide: "
                "give sequences of A, C, G, T, U, N and the other letters of IUPAC's code, or use "
                "data.tokenizer=byte."
            )
        return ids[ids != _SKIPPED]

    def decode_bytes(self, ids) -> bytes:
        """Returns the nucleotides in upper case; ids outside 0..4 are dropped."""
        ids = np.asarray(ids, np.int64).reshape(-1)
        return np.frombuffer(_LETTERS, np.uint8)[ids[(ids >= 0) & (ids <= _N)]].tobytes()


def complement(ids: np.ndarray) -> np.ndarray:
    """The complement of each id: A and T, C and G change places, others stay."""
    ids = np.asarray(ids)
    return np.where((ids >= 0) & (ids < _N), 3 - ids, ids)


def _letter(raw: bytes, place: int) -> str:
    return raw[place : place + 4].decode("utf-8", errors="replace")[:1]


def _shown(raw: bytes) -> str:
    head = raw[:24].decode("utf-8", errors="replace")
    return repr(head) + ("..." if len(raw) > 24 else "")
