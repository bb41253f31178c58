"""Multi-query associative recall: key-value pairs, then their keys again."""

import dataclasses

import numpy as np

from miras.config import require
from miras.data.task import Example, Material, Opened, Task, check_length, register


@register("mqar")
@dataclasses.dataclass(frozen=True)
class MQAR(Task):
    """Pairs of a key and a value, then each key again, whose target is the value.

    Zoology (2312.04927), section 4 and its `multiquery_ar`. With V = `vocab`, keys are distinct
    tokens in [1, V // 2) and values distinct tokens in [V // 2, V). A row begins with the pairs
    k1 v1 k2 v2 ...; after them, every second position may hold a query, and the queries are placed
    at 0, 1, ... with probabilities proportional to (place + 1)^(power - 1). The target is *at* the
    query: after reading a key, the model must predict its value. Between the queries are random
    tokens of the whole vocabulary:

        inputs    2 8 4 7 . . 4 . . . . . 2 . . .      vocab=12 pairs=2
        targets   . . . . . . 7 . . . . . 8 . . .

    The depth, which Zoology does not have, is the fraction of the positions without pairs and
    queries that are *before* the pairs; they hold random tokens other than the keys. None is 0, as
    in Zoology.

    Attributes:
        vocab: vocabulary size, >= 2 (pairs + 1).
        pairs: number of pairs of a row; of several numbers, each row draws one.
        power: 1 places queries uniformly; smaller values place more of them near the pairs; > 0.
        noise: whether there are random tokens between queries, or token 0.

    Raises:
        ConfigError: a value is out of range.
    """

    vocab: int = 8192
    pairs: int | tuple[int, ...] = 8
    power: float = 0.01
    noise: bool = True

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(bool(self.numbers), "task.pairs=[] is empty: give one or more numbers.")
        least, most = min(self.numbers), max(self.numbers)
        require(least >= 1, f"task.pairs={least} must be at least 1.")
        require(
            self.vocab >= 2 * (most + 1),
            f"task.vocab={self.vocab} has too few keys for task.pairs={most}: use "
            f"task.vocab={2 * (most + 1)} or more.",
        )
        require(self.power > 0, f"task.power={self.power} must be positive.")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The possible numbers of pairs of a row."""
        return (self.pairs,) if isinstance(self.pairs, int) else self.pairs

    def vocabulary(self) -> int:
        """`vocab`."""
        return self.vocab

    def open(self, material: Material) -> Opened:
        """No input is read."""
        del material
        return Opened(self.example)

    def example(self, random: np.random.Generator, length: int, depth: float | None) -> Example:
        """A row of at least 4 tokens per pair."""
        most = max(self.numbers)
        check_length(length, 4 * most, f"{most} pairs and their queries")
        pairs = int(random.choice(self.numbers))
        half = self.vocab // 2
        keys = 1 + random.choice(half - 1, pairs, replace=False)
        values = half + random.choice(self.vocab - half, pairs, replace=False)

        first = round((depth or 0.0) * (length - 4 * pairs))
        after_pairs = first + 2 * pairs
        inputs = random.integers(self.vocab, size=length) if self.noise else np.zeros(length, int)
        if self.noise and first:
            inputs[:first] = random.choice(np.setdiff1d(np.arange(self.vocab), keys), first)
        inputs[first:after_pairs:2], inputs[first + 1 : after_pairs : 2] = keys, values

        weights = np.arange(1, (length - after_pairs) // 2 + 1) ** (self.power - 1)
        places = random.choice(len(weights), pairs, replace=False, p=weights / weights.sum())
        inputs[after_pairs + 2 * places] = keys
        order = np.argsort(places)
        return Example(
            inputs.astype(np.int32),
            (after_pairs + 2 * places[order]).astype(np.int32),
            values[order].astype(np.int32),
        )
