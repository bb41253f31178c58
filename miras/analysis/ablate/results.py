"""What the outcomes of a grid say: means over seeds, ranks, and the effect of each choice.

All intervals are of 95 % by Student's t over the seeds. Runs of one seed share their text and their
order of documents, so differences are taken seed by seed before they are averaged.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from miras.analysis.ablate.grid import Cell, Grid, Run
from miras.analysis.ablate.outcome import Outcome
from miras.analysis.ablate.score import Score, score_of

_ROUNDING = 1e-9  # of float64 in a design of zeros and ones


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of scores, as all here.
        half: half the width of the interval; None for one seed, which has none.
    """

    mean: float
    half: float | None


class Row(NamedTuple):
    """A cell's results.

    Attributes:
        cell: which.
        rank: 1 is the best mean; None where a seed is missing, since it cannot be compared.
        score: on what is held out; None where no seed was finished.
        behind: how much worse than the best cell, seed by seed; None without a rank.
        values: the score of each finished seed.
        seconds: mean over finished seeds, of the process that ended each.
        parameters: trained numbers.
    """

    cell: Cell
    rank: int | None
    score: Estimate | None
    behind: Estimate | None
    values: tuple[float, ...]
    seconds: float | None
    parameters: int | None


class Effect(NamedTuple):
    """What one level of an axis does.

    Attributes:
        axis: the field.
        level: its value.
        cells: complete cells that have it.
        effect: how much more than the grand mean, the other axes being equal; None where no
            cell has the level, or where it always goes with a level of another axis.
    """

    axis: str
    level: str
    cells: int
    effect: Estimate | None


class Results(NamedTuple):
    """All that is concluded of a grid.

    Attributes:
        grid: what was trained.
        score: what is compared.
        outcomes: of every run, in the grid's order.
        rows: of every legal cell: the best first, those with missing seeds last.
        effects: of every level of every axis, in the grid's order.
        grand_mean: the mean that effects differ from; None where no cell is complete.
        complete: cells with all seeds, which effects are taken from.
        balanced: whether those are all combinations of the levels that have a cell, so that
            effects are plain differences of means; else they are those of an additive model, by
            least squares.
        explained: the share of the variance between cells that effects account for, in [0, 1]; None
            where there are no more cells than effects.
    """

    grid: Grid
    score: Score
    outcomes: Mapping[Run, Outcome]
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    grand_mean: float | None
    complete: int
    balanced: bool
    explained: float | None

    def adjusted(self, effect: Effect) -> float | None:
        """The mean of a level as if all cells were there; if balanced, its plain mean."""
        if effect.effect is None or self.grand_mean is None:
            return None
        return self.grand_mean + effect.effect.mean

    def unfinished(self, row: Row) -> Iterator[tuple[Run, str]]:
        """The runs of a cell that ended otherwise than done, with the reasons."""
        for run, outcome in self.outcomes.items():
            if self.grid.cells[run.cell] is row.cell and outcome.status != "done":
                yield run, f"{outcome.status}, {outcome.reason}"


def conclude(grid: Grid, outcomes: Mapping[Run, Outcome]) -> Results:
    """The results of a grid from how its runs ended."""
    table, score = np.full((len(grid.cells), grid.seeds), np.nan), score_of(grid)
    for number, run in enumerate(grid.runs):
        value = score.of(outcomes[run]) if run in outcomes else None
        if value is not None:
            table[run.cell, number // len(grid.cells)] = value
    complete = [n for n in range(len(grid.cells)) if np.isfinite(table[n]).all()]
    fit = _fit(grid, [grid.cells[n].levels for n in complete], table[complete])
    present: dict[str, int] = {}  # levels of an axis that have a cell
    for effect in fit.effects:
        present[effect.axis] = present.get(effect.axis, 0) + (effect.cells > 0)
    return Results(
        grid=grid,
        score=score,
        outcomes=outcomes,
        rows=_rows(grid, score, outcomes, table, complete),
        effects=fit.effects,
        grand_mean=fit.grand_mean,
        complete=len(complete),
        balanced=len(complete) == math.prod(present.values()),
        explained=fit.explained,
    )


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean and half-width of the interval of independent values, of which there is at least one."""
    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 1:
        return Estimate(float(values[0]), None)
    quantile = float(special.stdtrit(n - 1, 0.975))
    return Estimate(float(values.mean()), quantile * float(values.std(ddof=1)) / math.sqrt(n))


def _rows(
    grid: Grid,
    score: Score,
    outcomes: Mapping[Run, Outcome],
    table: np.ndarray,
    complete: list[int],
) -> tuple[Row, ...]:
    ranked = sorted(complete, key=lambda n: score.behind(table[n].mean(), 0.0))
    rest = [n for n in range(len(grid.cells)) if n not in set(complete)]
    rows = []
    for place, n in enumerate([*ranked, *rest]):
        found = [
            outcomes[run]
            for run in grid.runs
            if run.cell == n and run in outcomes and outcomes[run].status == "done"
        ]
        values = tuple(float(value) for value in table[n] if np.isfinite(value))
        has_rank = place < len(ranked)
        rows.append(
            Row(
                cell=grid.cells[n],
                rank=place + 1 if has_rank else None,
                score=estimate(values) if values else None,
                behind=estimate(score.behind(table[n], table[ranked[0]])) if has_rank else None,
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


def _fit(grid: Grid, levels: list[dict[str, str]], table: np.ndarray) -> _Fit:
    """Fit the additive model to each seed; its effects add up to 0 over the levels of an axis.

    Args:
        grid: the axes.
        levels: of each complete cell.
        table: scores, [complete cells, seeds].
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
    known = inverse @ design  # the projection on what the cells can tell
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


def _codes(grid: Grid, counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, np.ndarray]]:
    """Each level that has a cell as a vector, such that those of an axis add up to 0."""
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
