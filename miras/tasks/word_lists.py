"""What tasks about the words of a long list share: their contract, and invented words."""

import functools
from collections.abc import Callable

import numpy as np

from miras.data.task import Example, Material, Opened, Task

_CONSONANTS, _VOWELS = "bdfghklmnprstvz", "aeiou"
_SYLLABLES = len(_CONSONANTS) * len(_VOWELS)

Encode = Callable[[str], np.ndarray]


class WordList(Task):
    """Tasks whose answer has several words, between spaces."""

    def open(self, material: Material) -> Opened:
        """No input is read."""
        tokenizer = material.tokenizer
        make = functools.partial(
            self.example, functools.lru_cache(2**16)(tokenizer.encode), tokenizer.bos_id
        )
        return Opened(make, tokenizer.fingerprint)

    def references(self, answer: str) -> tuple[str, ...]:
        """The words."""
        return tuple(answer.split())

    def example(
        self,
        encode: Encode,
        start: int,
        random: np.random.Generator,
        length: int,
        depth: float | None,
    ) -> Example:
        """A row, whatever the depth."""
        raise NotImplementedError


class InventedWords:
    """Different invented words of three syllables, such as "bakuti"; of more if they run out."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random, self._seen = random, set[str]()

    def __iter__(self) -> "InventedWords":
        return self

    def __next__(self) -> str:
        syllables = 3 if len(self._seen) < _SYLLABLES**3 // 2 else 4
        while True:
            codes = self._random.integers(_SYLLABLES, size=syllables).tolist()
            word = "".join(
                _CONSONANTS[c // len(_VOWELS)] + _VOWELS[c % len(_VOWELS)] for c in codes
            )
            if word not in self._seen:
                self._seen.add(word)
                return word
