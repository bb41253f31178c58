"""Common words: those of a numbered list that occur more often than the others."""

import dataclasses
import itertools

import numpy as np

from miras.config import require
from miras.data.task import Example, check_length, register
from miras.tasks.background import text_example
from miras.tasks.word_lists import Encode, InventedWords, WordList


@register("common_words")
@dataclasses.dataclass(frozen=True)
class CommonWords(WordList):
    """RULER's common words extraction (2404.06654, section 3.3), in its wording.

        Below is a numbered list of words. In these words, some appear more often than others.
        Memorize the ones that appear most often.
        1. bakuti 2. lomare 3. bakuti ...
        Question: What are the 10 most common words in the above list? Answer: The top 10 words that
        appear most often in the list are: bakuti ...

    The targets are the common words in the order of their first appearance. The list has as many
    uncommon words as fit. Words are invented. RULER has `repeats=30 uncommon_repeats=3`, and shows
    an example first, which rows here do not have. Depth has no effect.

    Attributes:
        words: number of common words, >= 1.
        repeats: appearances of each common word, > `uncommon_repeats`.
        uncommon_repeats: of each other word, >= 1; the last one may have fewer.

    Raises:
        ConfigError: a value is out of range.
    """

    words: int = 10
    repeats: int = 30
    uncommon_repeats: int = 3

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(1 <= self.words <= 1000, f"task.words={self.words} must lie in [1, 1000].")
        require(
            self.repeats > self.uncommon_repeats >= 1,
            f"task.repeats={self.repeats} must be larger than task.uncommon_repeats="
            f"{self.uncommon_repeats}, which must be at least 1.",
        )

    def example(
        self,
        encode: Encode,
        start: int,
        random: np.random.Generator,
        length: int,
        depth: float | None,
    ) -> Example:
        """A row; the tokens that no entry of the list fills are a part of a word before it."""
        del depth
        words = InventedWords(random)
        common = [next(words) for _ in range(self.words)]
        opening, question = map(encode, self._around())
        entries, numbers = common * self.repeats, itertools.count(1)
        size = lambda word: len(encode(f"{next(numbers)}. ")) + len(encode(f"{word} "))  # noqa: E731
        fixed = sum(map(len, (opening, question, *(encode(f" {word}") for word in common))))
        fixed += sum(map(size, entries))
        check_length(length, fixed, f"{self.repeats} times {self.words} common words")

        uncommon = (word for word in words for _ in range(self.uncommon_repeats))
        room = length - fixed
        while (tokens := size(word := next(uncommon))) <= room:
            entries.append(word)
            room -= tokens
        text = [entries[n] for n in random.permutation(len(entries))]
        listed = [part for n, word in enumerate(text, 1) for part in (f"{n}. ", f"{word} ")]
        last = np.tile(encode(f"{word} "), room)  # has fewer entries than other words
        rest = last[len(last) - room :]
        answer = np.concatenate([encode(f" {word}") for word in sorted(common, key=text.index)])
        return text_example([opening, rest, *map(encode, listed), question], answer, start)

    def _around(self) -> tuple[str, str]:
        """The text before the list and after it."""
        several = self.words > 1
        which = f"are the {self.words} most common words" if several else "is the most common word"
        top = f"{self.words} words that appear" if several else "word that appears"
        return (
            "Below is a numbered list of words. In these words, some appear more often than "
            "others. Memorize the ones that appear most often.\n",
            f"\nQuestion: What {which} in the above list? Answer: The top {top} most often in the "
            f"list {'are' if several else 'is'}:",
        )
