"""Recall as RULER reports it: the share of a row's answers that are in a greedy completion.

RULER (2404.06654) counts an answer if its text is anywhere in the completion, in any order and case
(`string_match_all` of its code).
"""

from collections.abc import Callable, Sequence

import numpy as np

from miras.analysis.eval.answers import RowScore
from miras.analysis.eval.completions import complete
from miras.analysis.eval.row_reader import make_reader
from miras.data import Tokenizer
from miras.tasks import Example, Task
from miras.train import Run

Complete = Callable[[Sequence[np.ndarray], int], list[str]]
"""Maps contexts, int arrays [n], and the most tokens of a completion to greedy completions."""

_ROOM = 2  # tokens of a completion, as a multiple of those of the answer


def make_completer(run: Run, rows: int) -> Complete:
    """A `Complete` function of a run's model, which reads so many contexts at once."""
    reader = make_reader(run, rows)
    return lambda contexts, length: complete(reader, run.tokenizer, contexts, length)


def with_recall(
    scores: Sequence[RowScore],
    task: Task,
    rows: Sequence[Example],
    complete: Complete,
    tokenizer: Tokenizer,
) -> list[RowScore]:
    """The scores of rows with their recall, if the task has references.

    Args:
        scores: of the rows.
        task: of the rows.
        rows: each with all of its targets at its end.
        complete: gives completions of at most twice the tokens of the longest answer.
        tokenizer: of the rows.
    """
    if not task.references("a, b"):
        return list(scores)
    contexts = [row.inputs[: row.positions[0] + 1] for row in rows]
    length = _ROOM * max(len(row.targets) for row in rows)
    return [
        score._replace(recall=share(task.references(tokenizer.decode(row.targets)), text))
        for score, row, text in zip(scores, rows, complete(contexts, length), strict=True)
    ]


def share(references: Sequence[str], text: str) -> float:
    """The share of references that are in a text, whatever their case."""
    return sum(one.lower() in text.lower() for one in references) / len(references)
