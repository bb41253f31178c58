"""Statistics of a grid: differences to the base, means over seeds, ranks and main effects.

`paired` and `effects` have the mathematics. All intervals are 95 % confidence intervals by
Student's t over the seeds.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from miras.analysis.ablate.best_rates import Choice, at_best, choices
from miras.analysis.ablate.cell_costs import CellCosts
from miras.analysis.ablate.effects import Effect, fit_effects
from miras.analysis.ablate.estimate import Estimate, estimate
from miras.analysis.ablate.grid import AblationGrid, GridCell, GridRun
from miras.analysis.ablate.metric import Metric, metric_of
from miras.analysis.ablate.outcome import Outcome
from miras.analysis.ablate.paired import Difference, corrected, difference, pooled_spread


class Row(NamedTuple):
    """A cell's results.

    Attributes:
        cell: the cell.
        rank: 1 is the best mean; None if a seed is missing.
        score: the metric on held-out data; None if no seed finished.
        gap: difference to the best cell, positive if worse; None without a rank.
        difference: paired difference to the base cell; None for the base, and without a seed that
            both have.
        values: the metric of each finished seed.
        seconds: mean wall time of the finished seeds' last processes.
        parameters: number of trained parameters.
        tokens_per_second: mean over the finished seeds; None if none has logged it.
        utilization: model FLOPs utilisation; as above.
        costs: of the cell; None if not given.
    """

    cell: GridCell
    rank: int | None
    score: Estimate | None
    gap: Estimate | None
    difference: Difference | None
    values: tuple[float, ...]
    seconds: float | None
    parameters: int | None
    tokens_per_second: float | None
    utilization: float | None
    costs: CellCosts | None


class AllRuns(NamedTuple):
    """A grid with all the rates that it sweeps.

    Attributes:
        grid: the grid.
        outcomes: of its runs that have ended, in its order.
    """

    grid: AblationGrid
    outcomes: Mapping[GridRun, Outcome]


class GridResults(NamedTuple):
    """The results of a grid, of its cells at their best rates where it sweeps rates.

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
        spread: standard deviation over seeds of a difference to the base, pooled over the cells;
            None where no cell has two seeds.
        all_runs: those at all rates.
        choices: the best rate of every cell; empty if no rate is swept.
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
    spread: float | None
    all_runs: AllRuns
    choices: tuple[Choice, ...] = ()

    @property
    def base(self) -> GridCell:
        """The cell to which others are compared."""
        return self.grid.cells[self.grid.base]

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


def summarise(
    grid: AblationGrid,
    outcomes: Mapping[GridRun, Outcome],
    costs: Sequence[CellCosts | None] | None = None,
) -> GridResults:
    """Compute the results of a grid from the outcomes of its runs.

    Where the grid sweeps rates, the results are those of the cells at their best rates.

    Args:
        grid: the grid.
        outcomes: of the runs that have ended.
        costs: of the cells.
    """
    if not grid.swept:
        return _summarise(grid, outcomes, costs)
    chosen = choices(grid, outcomes, metric_of(grid))
    reduced, kept, places = at_best(grid, outcomes, chosen)
    own = None if costs is None else [costs[n] for n in places]
    results = _summarise(reduced, kept, own)
    return results._replace(choices=chosen, all_runs=AllRuns(grid, outcomes))


def _summarise(
    grid: AblationGrid,
    outcomes: Mapping[GridRun, Outcome],
    costs: Sequence[CellCosts | None] | None,
) -> GridResults:
    table, metric = np.full((len(grid.cells), grid.seeds), np.nan), metric_of(grid)
    for number, run in enumerate(grid.runs):
        value = metric.of(outcomes[run]) if run in outcomes else None
        if value is not None:
            table[run.cell, number // len(grid.cells)] = value
    complete = [n for n in range(len(grid.cells)) if np.isfinite(table[n]).all()]
    to_base = _differences(grid, table)
    fit = fit_effects(grid, [grid.cells[n].levels for n in complete], table[complete])
    present: dict[str, int] = {}  # number of levels of an axis that have a cell
    for effect in fit.effects:
        present[effect.axis] = present.get(effect.axis, 0) + (effect.cells > 0)
    return GridResults(
        grid=grid,
        metric=metric,
        outcomes=outcomes,
        rows=_rows(
            grid, metric, outcomes, table, complete, to_base, costs or [None] * len(grid.cells)
        ),
        effects=fit.effects,
        grand_mean=fit.grand_mean,
        complete=len(complete),
        balanced=len(complete) == math.prod(present.values()),
        explained=fit.explained,
        spread=pooled_spread(to_base),
        all_runs=AllRuns(grid, outcomes),
    )


def _differences(grid: AblationGrid, table: np.ndarray) -> list[Difference | None]:
    """Of every cell; None for the base."""
    return corrected(
        [
            None if n == grid.base else difference(table[n], table[grid.base])
            for n in range(len(grid.cells))
        ]
    )


def _rows(
    grid: AblationGrid,
    metric: Metric,
    outcomes: Mapping[GridRun, Outcome],
    table: np.ndarray,
    complete: list[int],
    to_base: list[Difference | None],
    costs: Sequence[CellCosts | None],
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
                difference=to_base[n],
                values=values,
                seconds=_mean(o.seconds for o in found),
                parameters=found[0].parameters if found else None,
                tokens_per_second=_mean(o.tokens_per_second for o in found),
                utilization=_mean(o.utilization for o in found),
                costs=costs[n],
            )
        )
    return tuple(rows)


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
