"""A labelled sequence, and the labelled sequences of a source by split."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Labelled(NamedTuple):
    """A sequence and its class.

    Attributes:
        text: the sequence as stored, stripped of surrounding white space.
        label: the name of its class.
    """

    text: bytes
    label: str

    def key(self, seed: int) -> int:
        """A hash of the sequence, by which it is assigned to splits; equal sequences agree."""
        digest = hashlib.blake2b(self.text, digest_size=8, key=seed.to_bytes(8, "little"))
        return int.from_bytes(digest.digest(), "little")


def fingerprint(examples: list[Labelled]) -> str:
    """A hash of sequences and labels, in order."""
    digest = hashlib.sha256()
    for text, label in examples:
        name = label.encode()
        digest.update(len(text).to_bytes(8, "little") + text)
        digest.update(len(name).to_bytes(8, "little") + name)
    return digest.hexdigest()
