"""The results of an evaluation: scores with intervals for each length and depth."""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from miras.analysis.eval.answers import RowScore
from miras.config import to_dict
from miras.tasks import Task

_Z = 1.959964  # of the normal distribution, 95 % two-sided


@dataclasses.dataclass(frozen=True)
class CellScore:
    """The scores at one length and depth, or at several of them merged.

    Attributes:
        examples: number of rows.
        exact: number of rows with all targets right.
        hits: number of right targets.
        targets: number of targets of all rows.
        recall_sum: sum over rows of the share of references in the greedy completion.
        recall_squares: sum of the squares of these shares.
        completions: number of rows that were completed.
    """

    examples: int
    exact: int
    hits: int
    targets: int
    recall_sum: float = 0.0
    recall_squares: float = 0.0
    completions: int = 0

    @property
    def exact_match(self) -> float:
        """Share of the rows with all targets right."""
        return self.exact / self.examples

    @property
    def accuracy(self) -> float:
        """Share of right targets."""
        return self.hits / self.targets

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the exact match: Wilson's score interval (1927)."""
        n, share = self.examples, self.exact_match
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        low = 0.0 if self.exact == 0 else middle - half  # exact, without rounding
        return low, 1.0 if self.exact == n else middle + half

    @property
    def recall(self) -> float | None:
        """The mean share of references in greedy completions; None if it was not measured."""
        return self.recall_sum / self.completions if self.completions else None

    @property
    def shown(self) -> float:
        """The recall if it was measured, else the exact match."""
        return self.exact_match if self.recall is None else self.recall

    @property
    def recall_interval(self) -> tuple[float, float]:
        """The 95 % interval of the recall, from the variance over rows."""
        n, mean = self.completions, self.recall or 0.0
        variance = max(0.0, self.recall_squares / max(n, 1) - mean**2) / max(n - 1, 1)
        half = _Z * math.sqrt(variance)
        return max(0.0, mean - half), min(1.0, mean + half)

    def plain(self) -> dict[str, Any]:
        """The scores as JSON values."""
        counts = ("examples", "exact", "hits", "targets")
        low, high = self.interval
        values = {name: getattr(self, name) for name in counts}
        values |= {"exact_match": self.exact_match, "low": low, "high": high}
        values |= {"accuracy": self.accuracy}
        if self.recall is not None:
            low, high = self.recall_interval
            values |= {"recall": self.recall, "recall_low": low, "recall_high": high}
        return values


def cell_score(scores: Iterable[RowScore]) -> CellScore:
    """The scores of rows, summed."""
    scores = list(scores)
    recalls = [score.recall for score in scores if score.recall is not None]
    return CellScore(
        len(scores),
        sum(score.exact for score in scores),
        sum(score.hits for score in scores),
        sum(score.targets for score in scores),
        math.fsum(recalls),
        math.fsum(recall**2 for recall in recalls),
        len(recalls),
    )


def merge(cells: Iterable[CellScore]) -> CellScore:
    """The scores of several cells, summed."""
    counts = [dataclasses.astuple(cell) for cell in cells]
    return CellScore(*(sum(column) for column in zip(*counts, strict=True)))


class TaskResults(NamedTuple):
    """The evaluation of one run on one task.

    Attributes:
        task: with its options.
        run: the run's folder, as given.
        step: number of updates of the model.
        source: of the background text.
        seed: of the rows.
        lengths: tokens per row, ascending.
        depths: ascending.
        cells: by length and depth.
    """

    task: Task
    run: str
    step: int
    source: str
    seed: int
    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    cells: dict[tuple[int, float], CellScore]

    @property
    def name(self) -> str:
        """The task's kind."""
        return to_dict(self.task)["kind"]

    def of_length(self, length: int) -> CellScore:
        """All depths of a length, merged."""
        return merge(self.cells[length, depth] for depth in self.depths)

    def of_depth(self, depth: float) -> CellScore:
        """All lengths of a depth, merged."""
        return merge(self.cells[length, depth] for length in self.lengths)

    @property
    def all(self) -> CellScore:
        """All cells, merged."""
        return merge(self.cells.values())

    def to_json(self) -> str:
        """The results as JSON text, with an entry of `cells` for each length and depth."""
        values = {
            "task": to_dict(self.task),
            "run": self.run,
            "step": self.step,
            "source": self.source,
            "seed": self.seed,
            "interval": "95 %, Wilson",
            "all": self.all.plain(),
            "cells": [
                {"length": length, "depth": depth} | cell.plain()
                for (length, depth), cell in self.cells.items()
            ],
        }
        return json.dumps(values, indent=2) + "\n"
