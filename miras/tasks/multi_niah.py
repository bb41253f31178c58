"""Several needles in a haystack: many keys, many values of a key, many queries."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from miras.config import require
from miras.data.task import Documents, register
from miras.tasks.background import Question
from miras.tasks.niah import NIAH, ask, words


@register("niah_multikey")
@dataclasses.dataclass(frozen=True)
class MultiKey(NIAH):
    """One needle among others with other keys: RULER's MK-NIAH (2404.06654, section 3.1).

    Text, values and the question are those of `niah`. The other needles are scattered, whatever the
    depth.

    | options | in RULER |
    |---|---|
    | the defaults | MK-NIAH-1 |
    | needles=true | MK-NIAH-2 |
    | needles=true form=uuid | MK-NIAH-3 |

    Attributes:
        form: as in `niah`; the background of "passkey" is noise.
        keys: number of needles, >= 1.
        needles: the whole background is of needles, in place of text; keys of form "uuid" are then
            UUIDs.

    Raises:
        ConfigError: a value is out of range.
    """

    form: Literal["passkey", "number", "word", "uuid"] = "number"
    keys: int = 4
    needles: bool = False

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(self.keys >= 1, f"task.keys={self.keys} must be at least 1.")

    @property
    def needs_documents(self) -> bool:
        """Whether the background is the text of the run."""
        return super().needs_documents and not self.needles

    def background(self, documents: Documents | None, random: np.random.Generator) -> Iterator[str]:
        """As in `niah`, or an endless stream of needles."""
        if not self.needles:
            yield from super().background(documents, random)
        while True:
            yield self.needle(self._key(random), self.value(random))

    def question(self, random: np.random.Generator) -> Question:
        """A needle, the question about it, and needles with other keys."""
        keys = distinct(self._key, self.keys, random)
        values = distinct(self.value, self.keys, random)
        needles = [self.needle(key, value) for key, value in zip(keys, values)]
        return ask(self.what, keys[:1], needles[:1], values[:1], needles[1:])

    def _key(self, random: np.random.Generator) -> str:
        return self.value(random) if self.needles and self.form == "uuid" else words(random)


class _Several(NIAH):
    """Tasks whose answer has several values, between commas."""

    def references(self, answer: str) -> tuple[str, ...]:
        """The values."""
        return tuple(answer.strip().split(", "))


@register("niah_multivalue")
@dataclasses.dataclass(frozen=True)
class MultiValue(_Several):
    """Several needles with one key, all of whose values are asked for: RULER's MV-NIAH.

        What are all the special magic numbers for KEY mentioned in the provided text? The special
        magic numbers for KEY mentioned in the provided text are VALUE, VALUE, VALUE, VALUE

    The targets are the values in their order in the text, with commas between them. With a depth,
    all needles are there.

    Attributes:
        form: as in `niah`; the background of "passkey" is noise.
        values: number of needles, >= 2.

    Raises:
        ConfigError: a value is out of range.
    """

    form: Literal["passkey", "number", "word", "uuid"] = "number"
    values: int = 4

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(self.values >= 2, f"task.values={self.values} must be at least 2.")

    def question(self, random: np.random.Generator) -> Question:
        """The needles, and the question about their key."""
        key, values = words(random), distinct(self.value, self.values, random)
        return ask(self.what, [key], [self.needle(key, value) for value in values], values)


@register("niah_multiquery")
@dataclasses.dataclass(frozen=True)
class MultiQuery(_Several):
    """Several needles with different keys, all of which are asked for: RULER's MQ-NIAH.

        What are all the special magic numbers for KEY, KEY, KEY, and KEY mentioned in the provided
        text? The special magic numbers for KEY, KEY, KEY, and KEY mentioned in the provided text
        are VALUE, VALUE, VALUE, VALUE

    The targets are the values in the order of the question, with commas between them; the needles
    have another order. With a depth, all needles are there.

    Attributes:
        form: as in `niah`; the background of "passkey" is noise.
        queries: number of needles, >= 2.

    Raises:
        ConfigError: a value is out of range.
    """

    form: Literal["passkey", "number", "word", "uuid"] = "number"
    queries: int = 4

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(self.queries >= 2, f"task.queries={self.queries} must be at least 2.")

    def question(self, random: np.random.Generator) -> Question:
        """The needles, and the question about their keys."""
        keys = distinct(words, self.queries, random)
        values = distinct(self.value, self.queries, random)
        needles = [self.needle(keys[n], values[n]) for n in random.permutation(self.queries)]
        return ask(self.what, keys, needles, values)


def distinct(
    draw: Callable[[np.random.Generator], str], count: int, random: np.random.Generator
) -> list[str]:
    """So many different strings.

    Raises:
        ConfigError: there are too few of them.
    """
    found: dict[str, None] = {}
    for _ in range(100 + 20 * count):
        if len(found) == count:
            break
        found[draw(random)] = None
    require(
        len(found) == count,
        f"task.digits has too few numbers for {count} different ones: raise it.",
    )
    return list(found)
