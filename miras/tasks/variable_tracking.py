"""Variable tracking: chains of assignments hidden in text, and which variables have a value."""

import dataclasses
import functools
import itertools
import string
from typing import Literal

import numpy as np

from miras.config import require
from miras.data.task import Documents, Example, Material, Opened, Task, register
from miras.tasks.background import Question, make_row, sentences
from miras.tasks.niah import NOISE

_LETTERS = 5
_LEAST, _MOST = 10_000, 99_999  # values, as in RULER


@register("variable_tracking")
@dataclasses.dataclass(frozen=True)
class VariableTracking(Task):
    """RULER's variable tracking (2404.06654, section 3.2), in its wording, without its example.

        Memorize and track the chain(s) of variable assignment hidden in the following text.
        (background) VAR ABCDE = 12345 (background) VAR FGHIJ = VAR ABCDE (background)
        Question: Find all variables that are assigned the value 12345 in the text above. Answer:
        According to the chain(s) of variable assignment in the text above, 2 variables are assigned
        the value 12345, they are: ABCDE FGHIJ

    The targets are the variables of the first chain, in order. Assignments keep their order. With a
    depth, the first chain is there; other chains are scattered.

    Attributes:
        chains: number of chains, >= 1; the value of the first is asked for.
        hops: assignments of a variable to the next in a chain, >= 1.
        background: "noise" as in RULER, "The grass is green. ..."; "text" is that of the run.

    Raises:
        ConfigError: a value is out of range.
    """

    chains: int = 1
    hops: int = 4
    background: Literal["noise", "text"] = "noise"

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(1 <= self.chains <= 100, f"task.chains={self.chains} must lie in [1, 100].")
        require(1 <= self.hops <= 100, f"task.hops={self.hops} must lie in [1, 100].")

    def open(self, material: Material) -> Opened:
        """Open the background text, if it is that of the run."""
        documents = material.documents() if self.background == "text" else None
        text = "" if documents is None else f" {documents.fingerprint}"
        make = functools.partial(self._example, material, documents)
        return Opened(make, f"{material.tokenizer.fingerprint}{text}")

    def references(self, answer: str) -> tuple[str, ...]:
        """The variables."""
        return tuple(answer.split())

    def _example(
        self,
        material: Material,
        documents: Documents | None,
        random: np.random.Generator,
        length: int,
        depth: float | None,
    ) -> Example:
        noise = itertools.cycle(NOISE) if documents is None else sentences(documents, random)
        question = self.question(random)
        return make_row(question, noise, material.tokenizer, random, length, depth)

    def question(self, random: np.random.Generator) -> Question:
        """The chains, and the question about the value of the first."""
        each = self.hops + 1
        names = _names(self.chains * each, random)
        values = _LEAST + random.choice(_MOST + 1 - _LEAST, self.chains, replace=False)
        chains = [names[n : n + each] for n in range(0, len(names), each)]
        lines = [_assignments(chain, int(value)) for chain, value in zip(chains, values)]
        # The other chains are interleaved at random, each in its order.
        order = random.permutation(np.repeat(np.arange(1, self.chains), each))
        others = [iter(own) for own in lines]
        return Question(
            "Memorize and track the chain(s) of variable assignment hidden in the following text."
            "\n\n",
            tuple(lines[0]),
            f"\nQuestion: Find all variables that are assigned the value {values[0]} in the text "
            "above. Answer: According to the chain(s) of variable assignment in the text above, "
            f"{each} variables are assigned the value {values[0]}, they are:",
            f" {' '.join(chains[0])}",
            tuple(next(others[n]) for n in order),
        )


def _assignments(chain: list[str], value: int) -> list[str]:
    first = f"VAR {chain[0]} = {value}\n"
    return [first, *(f"VAR {new} = VAR {old}\n" for old, new in itertools.pairwise(chain))]


def _names(count: int, random: np.random.Generator) -> list[str]:
    """Different names of five capital letters."""
    letters = len(string.ascii_uppercase)
    codes = random.choice(letters**_LETTERS, count, replace=False)
    return [
        "".join(string.ascii_uppercase[code // letters**n % letters] for n in range(_LETTERS))
        for code in codes.tolist()
    ]
