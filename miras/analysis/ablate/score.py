"""Score: the number that the cells of a grid are compared by."""

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from miras.analysis.ablate.outcome import Outcome

if TYPE_CHECKING:
    from miras.analysis.ablate.grid import Grid


_Value = TypeVar("_Value", float, np.ndarray)


class Score(NamedTuple):
    """A number of each finished run.

    Attributes:
        field: its name in an `Outcome` and in the files.
        name: what people call it.
        less_is_better: or more is.
    """

    field: str
    name: str
    less_is_better: bool

    def of(self, outcome: Outcome) -> float | None:
        """A run's; None unless it is done."""
        return getattr(outcome, self.field)

    def behind(self, value: _Value, best: _Value) -> _Value:
        """How much worse values are than the best."""
        return value - best if self.less_is_better else best - value


OF_TEXT = Score("bits_per_byte", "bits per byte", less_is_better=True)
OF_A_TASK = Score("accuracy", "token accuracy", less_is_better=False)


def score_of(grid: "Grid") -> Score:
    """Token accuracy where every cell is trained on a task, else bits per byte."""
    tasks = all(cell.config.data.task is not None for cell in grid.cells)
    return OF_A_TASK if tasks else OF_TEXT
