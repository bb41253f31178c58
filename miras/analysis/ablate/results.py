"""Statistics of a grid: means over seeds, ranks, and the main effect of each choice.

All intervals are 95 % confidence intervals by Student's t over the seeds. Runs with the same seed
share their training order, and all runs their held-out data, so differences are taken per seed and
then averaged.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from miras.analysis.ablate.grid import AblationGrid, GridCell, GridRun
from miras.analysis.ablate.metric import Metric, metric_of
from miras.analysis.ablate.outcome import Outcome

_ROUNDING = 1e-9  # float64 rounding in a design matrix of zeros and ones


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of the metric.
        half: half-width of the confidence interval; None for a single seed.
    """

    mean: float
    half: float | None


class Row(NamedTuple):
    """A cell's results.

    Attributes:
        cell: the cell.
        rank: 1 is the best mean; None if a seed is missing.
        score: the metric on held-out data; None if no seed finished.
        gap: difference to the best cell, positive if worse; None without a rank.
        values: the metric of each finished seed.
        seconds: mean wall time of the finished seeds' last processes.
        parameters: number of trained parameters.
    """

    cell: GridCell
    rank: int | None
    score: Estimate | None
    gap: Estimate | None
    values: tuple[float, ...]
    seconds: float | None
    parameters: int | None


class Effect(NamedTuple):
    """The main effect of one level of an axis.

    Attributes:
        axis: the field.
        level: its value.
        cells: number of complete cells with the level.
        effect: difference to the grand mean, with the other axes equal; None if it is not
            estimable.
    """

    axis: str
    level: str
    cells: int
    effect: Estimate | None


class GridResults(NamedTuple):
    """The results of a grid.

    Attributes:
        grid: the grid.
        metric: by which cells are compared.
        outcomes: of every run, in the grid's order.
        rows: of every legal cell, best first, those with missing seeds last.
        effects: of every level of every axis, in the grid's order.
        grand_mean: to which effects are relative; None if no cell is complete.
        complete: number of cells with all seeds, from which effects are estimated.
        balanced: whether those are all combinations of the levels that occur, so that effects are
            differences of means; otherwise they are those of an additive model, fitted by least
            squares.
        explained: share of the variance between cells that effects explain, in [0, 1]; None if
            there are no more cells than effects.
    """

    grid: AblationGrid
    metric: Metric
    outcomes: Mapping[GridRun, Outcome]
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    grand_mean: float | None
    complete: int
    balanced: bool
    explained: float | None

    def adjusted(self, effect: Effect) -> float | None:
        """The mean of a level in the additive model; if balanced, the mean of its cells."""
        if effect.effect is None or self.grand_mean is None:
            return None
        return self.grand_mean + effect.effect.mean

    def unfinished(self, row: Row) -> Iterator[tuple[GridRun, str]]:
        """The runs of a cell whose status is not "done", with the reasons."""
        for run, outcome in self.outcomes.items():
            if self.grid.cells[run.cell] is row.cell and outcome.status != "done":
                yield run, f"{outcome.status}, {outcome.reason}"


def summarise(grid: AblationGrid, outcomes: Mapping[GridRun, Outcome]) -> GridResults:
    """Compute the results of a grid from the outcomes of its runs."""
    table, metric = np.full((len(grid.cells), grid.seeds), np.nan), metric_of(grid)
    for number, run in enumerate(grid.runs):
        value = metric.of(outcomes[run]) if run in outcomes else None
        if value is not None:
            table[run.cell, number // len(grid.cells)] = value
    complete = [n for n in range(len(grid.cells)) if np.isfinite(table[n]).all()]
    fit = _fit(grid, [grid.cells[n].levels for n in complete], table[complete])
    present: dict[str, int] = {}  # number of levels of an axis that have a cell
    for effect in fit.effects:
        present[effect.axis] = present.get(effect.axis, 0) + (effect.cells > 0)
    return GridResults(
        grid=grid,
        metric=metric,
        outcomes=outcomes,
        rows=_rows(grid, metric, outcomes, table, complete),
        effects=fit.effects,
        grand_mean=fit.grand_mean,
        complete=len(complete),
        balanced=len(complete) == math.prod(present.values()),
        explained=fit.explained,
    )


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of independent values, at least one, and the half-width of its interval."""
    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 1:
        return Estimate(float(values[0]), None)
    quantile = float(special.stdtrit(n - 1, 0.975))
    return Estimate(float(values.mean()), quantile * float(values.std(ddof=1)) / math.sqrt(n))


def _rows(
    grid: AblationGrid,
    metric: Metric,
    outcomes: Mapping[GridRun, Outcome],
    table: np.ndarray,
    complete: list[int],
) -> tuple[Row, ...]:
    ranked = sorted(complete, key=lambda n: metric.gap(table[n].mean(), 0.0))
    rest = [n for n in range(len(grid.cells)) if n not in set(complete)]
    rows = []
    for index, n in enumerate([*ranked, *rest]):
        found = [
            outcomes[run]
            for run in grid.runs
            if run.cell == n and run in outcomes and outcomes[run].status == "done"
        ]
        values = tuple(float(value) for value in table[n] if np.isfinite(value))
        has_rank = index < len(ranked)
        rows.append(
            Row(
                cell=grid.cells[n],
                rank=index + 1 if has_rank else None,
                score=estimate(values) if values else None,
                gap=estimate(metric.gap(table[n], table[ranked[0]])) if has_rank else None,
                values=values,
                seconds=float(np.mean([o.seconds for o in found])) if found else None,
                parameters=found[0].parameters if found else None,
            )
        )
    return tuple(rows)


class _Fit(NamedTuple):
    effects: tuple[Effect, ...]
    grand_mean: float | None
    explained: float | None


def _fit(grid: AblationGrid, levels: list[dict[str, str]], table: np.ndarray) -> _Fit:
    """Fit the additive model to each seed; effects sum to 0 over the levels of an axis.

    Args:
        grid: the grid.
        levels: of each complete cell.
        table: the metric, [complete cells, seeds].
    """
    counts = {
        (axis, value): sum(cell[axis] == value for cell in levels)
        for axis, values in grid.axes.items()
        for value in values
    }
    if not levels:
        return _Fit(tuple(Effect(*key, 0, None) for key in counts), None, None)
    codes = _codes(grid, counts)
    width = 1 + sum(len(next(iter(code.values()))) for code in codes.values())
    design = np.array([_design_row(codes, cell) for cell in levels])
    inverse = np.linalg.pinv(design)
    known = inverse @ design  # projection onto the estimable contrasts
    solution = inverse @ table
    effects, start = [], 1
    for axis, code in codes.items():
        size = len(next(iter(code.values())))
        for value in grid.axes[axis]:
            found = None
            if value in code:
                contrast = np.zeros(width)
                contrast[start : start + size] = code[value]
                if size and np.abs(contrast @ known - contrast).max() < _ROUNDING:
                    found = estimate(contrast @ solution)
            effects.append(Effect(axis, value, counts[axis, value], found))
        start += size
    constant = np.eye(width)[0]
    estimable = np.abs(constant @ known - constant).max() < _ROUNDING
    return _Fit(
        tuple(effects),
        float((constant @ solution).mean()) if estimable else None,
        _explained(design, table.mean(axis=1)),
    )


def _codes(
    grid: AblationGrid, counts: Mapping[tuple[str, str], int]
) -> dict[str, dict[str, np.ndarray]]:
    """Each level that has a cell as a vector; the vectors of an axis sum to 0."""
    codes = {}
    for axis, values in grid.axes.items():
        present = [value for value in values if counts[axis, value]]
        rows = np.vstack([np.eye(len(present) - 1), -np.ones(len(present) - 1)])
        codes[axis] = dict(zip(present, rows))
    return codes


def _design_row(
    codes: Mapping[str, Mapping[str, np.ndarray]], cell: Mapping[str, str]
) -> np.ndarray:
    return np.concatenate([[1.0], *(code[cell[axis]] for axis, code in codes.items())])


def _explained(design: np.ndarray, means: np.ndarray) -> float | None:
    total = float(((means - means.mean()) ** 2).sum())
    if total == 0 or len(means) <= np.linalg.matrix_rank(design):
        return None
    left = means - design @ np.linalg.lstsq(design, means, rcond=None)[0]
    return 1 - float((left**2).sum()) / total
