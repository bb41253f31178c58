"""Needle in a haystack: a sentence with a number, a word or a UUID, hidden in text."""

import dataclasses
import functools
import itertools
import uuid
from collections.abc import Iterator
from typing import Literal

import numpy as np

from miras.config import require
from miras.data.task import Documents, Example, Material, Opened, Task, register
from miras.tasks.background import Question, make_row, sentences

NOISE = (
    "The grass is green. ",
    "The sky is blue. ",
    "The sun is yellow. ",
    "Here we go. ",
    "There and back again.\n",
)
"""The noise of RULER, which is repeated."""

_CONSONANTS, _VOWELS = "bdfghklmnprstvz", "aeiou"


@register("niah")
@dataclasses.dataclass(frozen=True)
class NIAH(Task):
    """The single needle of RULER (2404.06654), section 3.1 and appendix B, in its wording.

        A special magic number is hidden within the following text. Make sure to memorize it. I
        will quiz you about the number afterwards.
        (background) One of the special magic numbers for KEY is: VALUE. (background)
        What is the special magic number for KEY mentioned in the provided text? The special magic
        number for KEY mentioned in the provided text is VALUE

    The targets are the tokens of the last VALUE and the space before it. KEY is two invented words
    joined by a hyphen. The background and VALUE depend on `form`:

    | form | background | VALUE | in RULER |
    |---|---|---|---|
    | passkey | "The grass is green. ...", repeated | number | S-NIAH-1 |
    | number | the run's text | number | S-NIAH-2 |
    | word | the run's text | two invented words | |
    | uuid | the run's text | UUID | S-NIAH-3 |

    The needle is between two sentences or lines, nearest to the depth; None draws the position.

    Attributes:
        form: as above.
        digits: of a number, in [1, 18]; 7 in RULER.

    Raises:
        ConfigError: a value is out of range.
    """

    form: Literal["passkey", "number", "word", "uuid"] = "passkey"
    digits: int = 7

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(1 <= self.digits <= 18, f"task.digits={self.digits} must lie in [1, 18].")

    def open(self, material: Material) -> Opened:
        """Open the background text, if the form uses the text of the run."""
        tokenizer = material.tokenizer
        if not self.needs_documents:
            make = functools.partial(self._example, material, None)
            return Opened(make, tokenizer.fingerprint)
        documents = material.documents()
        make = functools.partial(self._example, material, documents)
        return Opened(make, f"{tokenizer.fingerprint} {documents.fingerprint}")

    def _example(
        self, material: Material, documents, random: np.random.Generator, length: int, depth
    ) -> Example:
        background = self.background(documents, random)
        question = self.question(random)
        return make_row(question, background, material.tokenizer, random, length, depth)

    @property
    def needs_documents(self) -> bool:
        """Whether the background is the text of the run."""
        return self.form != "passkey"

    @property
    def what(self) -> str:
        """What a value is called: number, word or uuid."""
        return self.form if self.form in ("word", "uuid") else "number"

    def background(self, documents: Documents | None, random: np.random.Generator) -> Iterator[str]:
        """An endless stream of sentences of the documents, or of noise if there are none."""
        return itertools.cycle(NOISE) if documents is None else sentences(documents, random)

    def question(self, random: np.random.Generator) -> Question:
        """A needle and the question about it."""
        key, value = words(random), self.value(random)
        return ask(self.what, [key], [self.needle(key, value)], [value])

    def needle(self, key: str, value: str) -> str:
        """The sentence that says the value of a key."""
        return f"One of the special magic {self.what}s for {key} is: {value}.\n"

    def value(self, random: np.random.Generator) -> str:
        """A value of this form."""
        if self.form == "word":
            return words(random)
        if self.form == "uuid":
            return str(uuid.UUID(bytes=random.bytes(16), version=4))
        return str(random.integers(10 ** (self.digits - 1), 10**self.digits))


def ask(
    what: str,
    keys: list[str],
    facts: list[str],
    values: list[str],
    distractors: list[str] | None = None,
) -> Question:
    """The question about the values of keys, in the wording of RULER."""
    query = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
    several = len(values) > 1
    some, are = ("Some", "are") if several else ("A", "is")
    plain = f"{what}s" if several else what
    what = f"special magic {plain}"
    where = f"{what} for {query} mentioned in the provided text"
    return Question(
        f"{some} {what} {are} hidden within the following text. Make sure to "
        f"memorize it. I will quiz you about the {plain} afterwards.\n",
        tuple(facts),
        f"\nWhat {are}{' all' if several else ''} the {where}? The {where} {are}",
        f" {', '.join(values)}",
        tuple(distractors or ()),
    )


def words(random: np.random.Generator) -> str:
    """Two words of three syllables each, such as "bakuti-lomare"."""
    letters = [str(random.choice(list(kind))) for kind in (_CONSONANTS, _VOWELS) * 6]
    return f"{''.join(letters[:6])}-{''.join(letters[6:])}"
