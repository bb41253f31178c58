"""Selective copying: tokens scattered among blanks, to be reproduced in order at the end."""

import dataclasses

import numpy as np

from miras.config import require
from miras.data.task import Example, Material, Opened, Task, check_length, register

_WINDOW = 4  # with a depth, the tokens are in a quarter of the context


@register("selective_copy")
@dataclasses.dataclass(frozen=True)
class SelectiveCopy(Task):
    """Tokens scattered among blanks are the targets, in order, at the markers that end the row.

    The denoising task of Jing et al. (1706.02761) in the form of Mamba (2312.00752), section 4.1.1:
    a row of 4096 tokens with 16 data tokens, of a vocabulary of 16. Token 0 is the blank, the last
    token of the vocabulary is the marker, and the others are data. The inputs do not contain the
    answers:

        inputs    0 3 0 0 1 0 3 0 0 7 7 7      vocab=8 tokens=3
        targets   . . . . . . . . . 3 1 3

    Depth None scatters the tokens over the whole context, as in the papers; with a depth they are
    in a window of a quarter of the context, whose position is the depth.

    Attributes:
        vocab: vocabulary size including the blank and the marker, >= 4.
        tokens: number of data tokens, >= 1; the row ends with as many markers.

    Raises:
        ConfigError: a value is out of range.
    """

    vocab: int = 16
    tokens: int = 16

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(
            self.vocab >= 4,
            f"task.vocab={self.vocab} must be at least 4: a blank, a marker and two data tokens.",
        )
        require(self.tokens >= 1, f"task.tokens={self.tokens} must be at least 1.")

    def vocabulary(self) -> int:
        """`vocab`."""
        return self.vocab

    def open(self, material: Material) -> Opened:
        """No input is read."""
        del material
        return Opened(self.example)

    def example(self, random: np.random.Generator, length: int, depth: float | None) -> Example:
        """A row of at least 2 tokens per data token."""
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
