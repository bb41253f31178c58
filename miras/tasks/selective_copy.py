"""Selective copying: a few tokens among blanks, to be told in order at the end."""

import dataclasses

import numpy as np

from miras.config import require
from miras.data.task import Example, Material, Opened, Task, check_length, register

_WINDOW = 4  # with a depth, the tokens lie in one fourth of the context


@register("selective_copy")
@dataclasses.dataclass(frozen=True)
class SelectiveCopy(Task):
    """Tokens scattered among blanks; at the marks that end the row they are the targets, in order.

    Jing et al. (1706.02761)'s denoising task as Mamba (2312.00752), section 4.1.1, has it: a row
    of 4096 with 16 tokens of a vocabulary of 16. Token 0 is the blank, the last token of the
    vocabulary the mark, those between are data. The answers are not among the inputs:

        inputs    0 3 0 0 1 0 3 0 0 7 7 7      vocab=8 tokens=3
        targets   . . . . . . . . . 3 1 3

    Depth None scatters the tokens over the whole context, as in the papers; with a depth they lie
    in a window of a quarter of it, which the depth moves from its start to its end.

    Attributes:
        vocab: with blank and mark, >= 4.
        tokens: to be copied, >= 1; as many marks end the row.

    Raises:
        ConfigError: for a value out of range.
    """

    vocab: int = 16
    tokens: int = 16

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(
            self.vocab >= 4,
            f"task.vocab={self.vocab} must be at least 4: a blank, a mark, and two to tell apart.",
        )
        require(self.tokens >= 1, f"task.tokens={self.tokens} must be at least 1.")

    def vocabulary(self) -> int:
        """`vocab`."""
        return self.vocab

    def open(self, material: Material) -> Opened:
        """Nothing is read."""
        del material
        return Opened(self.example)

    def example(self, random: np.random.Generator, length: int, depth: float | None) -> Example:
        """A row of at least 2 tokens for each to be copied."""
        check_length(length, 2 * self.tokens, f"{self.tokens} tokens and their copies")
        context = length - self.tokens
        window, first = context, 0
        if depth is not None:
            window = max(self.tokens, context // _WINDOW)
            first = round(depth * (context - window))
        data = random.integers(1, self.vocab - 1, self.tokens)
        inputs = np.zeros(length, np.int32)
        inputs[first + np.sort(random.choice(window, self.tokens, replace=False))] = data
        inputs[context:] = self.vocab - 1
        return Example(inputs, np.arange(context, length, dtype=np.int32), data.astype(np.int32))
