"""The metric by which the cells of a grid are compared."""

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from miras.analysis.ablate.outcome import Outcome

if TYPE_CHECKING:
    from miras.analysis.ablate.grid import AblationGrid


_Value = TypeVar("_Value", float, np.ndarray)


class Metric(NamedTuple):
    """A number of each finished run.

    Attributes:
        field: of an `Outcome`, and of the files.
        name: in tables and figures.
        less_is_better: whether a smaller value is better.
    """

    field: str
    name: str
    less_is_better: bool

    def of(self, outcome: Outcome) -> float | None:
        """The value of a run; None unless it is done."""
        return outcome.score(self.field)

    def gap(self, value: _Value, best: _Value) -> _Value:
        """The difference to the best value, positive if worse."""
        return value - best if self.less_is_better else best - value


BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte", less_is_better=True)


def metric_of(grid: "AblationGrid") -> Metric:
    """The score of what all cells are trained on; bits per byte if they are trained on several."""
    from miras.train.objective_of import objective_of

    scores = {objective_of(cell.config.data).score for cell in grid.cells}
    return Metric(*scores.pop()) if len(scores) == 1 else BITS_PER_BYTE
