"""Completions of contexts up to a stop string, decoded side by side."""

from collections.abc import Callable, Sequence

import numpy as np

from miras.analysis.eval.row_reader import RowReader
from miras.data import Tokenizer
from miras.models import Sampling, steps
from miras.runtime import signals


def complete(
    reader: RowReader,
    tokenizer: Tokenizer,
    contexts: Sequence[np.ndarray],
    length: int,
    until: Sequence[str] = (),
    sampling: Sampling | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """The text that follows each context, in the order given.

    A completion ends before the first stop string, at a document start, or after `length` tokens.

    Args:
        reader: of the model.
        tokenizer: of the model.
        contexts: int arrays [n], n >= 1.
        length: most tokens of a completion, >= 0.
        until: stop strings, which are not part of a completion; empty ones are ignored.
        sampling: greedy decoding of the tokenizer's ids if not given.
        progress: called with the number of contexts of each batch.
    """
    until = [stop for stop in until if stop]
    sampling = sampling or Sampling(temperature=0.0, vocab=tokenizer.vocab_size)
    order = sorted(range(len(contexts)), key=lambda n: len(contexts[n]), reverse=True)
    found: dict[int, str] = {}
    for first in range(0, len(order), reader.rows):
        some = order[first : first + reader.rows]
        read = reader.read([contexts[n] for n in some])
        rows = [_Row(tokenizer, until) for _ in some]
        with reader.on_mesh():
            for step in steps(reader.model, read.logits, read.state, length, sampling):
                signals.check()
                for row, token in zip(rows, step.token):
                    row.add(int(token))
                if all(row.ended for row in rows):
                    break
        found |= {n: row.text for n, row in zip(some, rows, strict=True)}
        progress(len(some))
    return [found[n] for n in range(len(contexts))]


class _Row:
    """A completion in progress."""

    def __init__(self, tokenizer: Tokenizer, until: Sequence[str]) -> None:
        self._tokenizer, self._until = tokenizer, until
        self._ids: list[int] = []
        self.text, self.ended = "", False

    def add(self, token: int) -> None:
        """Add a token, unless the completion has ended."""
        if self.ended:
            return
        if token == self._tokenizer.bos_id:
            self.ended = True
            return
        self._ids.append(token)
        self.text = self._tokenizer.decode(self._ids)
        ends = [end for stop in self._until if (end := self.text.find(stop)) >= 0]
        if ends:
            self.text, self.ended = self.text[: min(ends)], True
