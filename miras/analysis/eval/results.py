"""What came of an evaluation: a cell for each length and depth, with its interval."""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from miras.analysis.eval.reading import Score
from miras.config import to_dict
from miras.tasks import Task

_Z = 1.959964  # of the normal distribution, 95 % two-sided


@dataclasses.dataclass(frozen=True)
class Cell:
    """The answers at one length and depth, or at several of them together.

    Attributes:
        examples: rows that were answered.
        exact: rows of which all targets are right.
        hits: targets that are right.
        targets: targets of all rows.
    """

    examples: int
    exact: int
    hits: int
    targets: int

    @property
    def exact_match(self) -> float:
        """Share of the rows whose answer is right."""
        return self.exact / self.examples

    @property
    def accuracy(self) -> float:
        """Share of the targets that are right."""
        return self.hits / self.targets

    @property
    def interval(self) -> tuple[float, float]:
        """Of the exact match, 95 %: Wilson's score interval (1927), which holds at 0 and 1 too."""
        n, share = self.examples, self.exact_match
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        low = 0.0 if self.exact == 0 else middle - half  # where it is so, but for rounding
        return low, 1.0 if self.exact == n else middle + half

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        low, high = self.interval
        shares = {"exact_match": self.exact_match, "low": low, "high": high}
        return dataclasses.asdict(self) | shares | {"accuracy": self.accuracy}


def cell_of(scores: Iterable[Score]) -> Cell:
    """The scores of some rows."""
    scores = list(scores)
    return Cell(
        len(scores),
        sum(score.exact for score in scores),
        sum(score.hits for score in scores),
        sum(score.targets for score in scores),
    )


def together(cells: Iterable[Cell]) -> Cell:
    """All rows of several cells."""
    counts = [dataclasses.astuple(cell) for cell in cells]
    return Cell(*(sum(column) for column in zip(*counts, strict=True)))


class Results(NamedTuple):
    """An evaluation of one run on one task.

    Attributes:
        task: with its options.
        run: the run's folder, as it was given.
        step: updates that the model has seen.
        source: where background text is from.
        seed: of the rows.
        lengths: tokens of a row, ascending.
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
    cells: dict[tuple[int, float], Cell]

    @property
    def name(self) -> str:
        """The task's kind."""
        return to_dict(self.task)["kind"]

    def of_length(self, length: int) -> Cell:
        """All depths of a length."""
        return together(self.cells[length, depth] for depth in self.depths)

    def of_depth(self, depth: float) -> Cell:
        """All lengths of a depth."""
        return together(self.cells[length, depth] for length in self.lengths)

    @property
    def all(self) -> Cell:
        """All cells."""
        return together(self.cells.values())

    def to_json(self) -> str:
        """As JSON text, with a line of `cells` for each length and depth."""
        told = {
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
        return json.dumps(told, indent=2) + "\n"
