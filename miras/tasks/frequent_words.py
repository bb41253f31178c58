"""Frequent words: the three that occur most often in a text of coded words."""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np

from miras.config import require
from miras.data.task import Example, check_length, register
from miras.tasks.background import text_example
from miras.tasks.word_lists import Encode, InventedWords, WordList

_OPENING = (
    "Read the following coded text and track the frequency of each coded word. Find the three most "
    "frequently appeared coded words. "
)
_QUESTION = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three "
    "most frequently appeared words in the above coded text? Answer: According to the coded text "
    "above, the three most frequently appeared words are:"
)


@register("frequent_words")
@dataclasses.dataclass(frozen=True)
class FrequentWords(WordList):
    """RULER's frequent words extraction (2404.06654, section 3.3), in its wording.

        Read the following coded text and track the frequency of each coded word. Find the three
        most frequently appeared coded words. bakuti ... lomare ... bakuti
        Question: Do not provide any explanation. Please ignore the dots '....'. What are the three
        most frequently appeared words in the above coded text? Answer: According to the coded text
        above, the three most frequently appeared words are: bakuti lomare difazo

    With N words in the text, word k appears N k^-alpha / zeta(alpha) times, rounded down; word 1 is
    the dots. The targets are words 2, 3 and 4, in this order. Words are invented, and there are
    as many of them as fit. Depth has no effect.

    Attributes:
        alpha: exponent of the distribution, in [1.5, 3.5]; 2 in RULER, and 3.5 is the easiest that
            it has.

    Raises:
        ConfigError: a value is out of range.
    """

    alpha: float = 2.0

    def validate(self) -> None:
        """Check the range above."""
        super().validate()
        require(1.5 <= self.alpha <= 3.5, f"task.alpha={self.alpha} must lie in [1.5, 3.5].")

    def counts(self, total: int) -> np.ndarray:
        """Appearances of words 1, 2, ... that appear at all, in a text of about `total` words."""
        sum_ = _zeta(self.alpha)
        most = int((total / sum_) ** (1 / self.alpha)) + 1
        ranks = np.arange(1.0, most + 1)
        found = np.floor(total * ranks**-self.alpha / sum_).astype(int)
        return found[found > 0]

    def example(
        self,
        encode: Encode,
        start: int,
        random: np.random.Generator,
        length: int,
        depth: float | None,
    ) -> Example:
        """A row; the tokens that no word fills are dots."""
        del depth
        made = InventedWords(random)
        words = ["...", *itertools.islice(made, 3)]
        opening, question = encode(_OPENING), encode(_QUESTION)
        answer = np.concatenate([encode(f" {word}") for word in words[1:]])
        fixed = sum(map(len, (opening, question, answer)))

        def size(total: int) -> int:
            counts = self.counts(total)
            words.extend(next(made) for _ in range(len(counts) - len(words)))
            sizes = np.array([len(encode(f"{word} ")) for word in words[: len(counts)]])
            return int(counts @ sizes)

        check_length(length, fixed + size(self.least), "words of different frequencies")
        total = _largest(lambda total: fixed + size(total) <= length, self.least)
        text = np.repeat(words[: len(self.counts(total))], self.counts(total))
        shuffled = [encode(f"{word} ") for word in random.permutation(text).tolist()]
        missing, dots = length - fixed - size(total), encode("... ")
        rest = np.tile(dots, missing // len(dots) + 1)[:missing]
        return text_example([opening, rest, *shuffled, question], answer, start)

    @property
    def least(self) -> int:
        """The fewest words from which on words 2, 3, 4 and 5 always differ in number."""
        return _least(self.alpha)


@functools.cache
def _zeta(alpha: float) -> float:
    from scipy.special import zeta  # takes longer to import than all tasks

    return float(zeta(alpha))


@functools.cache
def _least(alpha: float) -> int:
    totals = np.arange(1, 20_000)[:, None]
    found = np.floor(totals * np.arange(2.0, 6) ** -alpha / _zeta(alpha))
    alike = np.flatnonzero((np.diff(found, axis=1) >= 0).any(axis=1))
    return int(totals[alike[-1], 0]) + 1


def _largest(fits: Callable[[int], bool], least: int) -> int:
    """The largest number that fits, by bisection; `least` does."""
    most = 2 * least
    while fits(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least
