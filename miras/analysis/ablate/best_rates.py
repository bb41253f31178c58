"""The best rate of each cell, where a grid sweeps rates.

A cell is compared at the rate with the best mean of the held-out metric over its seeds. That choice
uses the metric by which cells are then compared, so that each value is a little too good, the more
so the more rates there are; all cells, the base included, have the same number of rates.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from miras.analysis.ablate.estimate import Estimate, estimate
from miras.analysis.ablate.grid import AblationGrid, GridCell, GridRun
from miras.analysis.ablate.metric import Metric
from miras.analysis.ablate.outcome import Outcome

Edge = Literal["lowest", "highest"]


class RateCandidate(NamedTuple):
    """A cell at one combination of the rates.

    Attributes:
        cell: with its rates.
        index: in the grid.
        score: the metric; None if no seed is done.
        seeds: number of seeds that are done.
        complete: whether all are.
    """

    cell: GridCell
    index: int
    score: Estimate | None
    seeds: int
    complete: bool


class Choice(NamedTuple):
    """The rates of a cell.

    Attributes:
        group: name of the cell without its rates.
        candidates: in the grid's order.
        best: among the complete ones; None if there is none.
        edges: the rates that are the lowest or highest of the sweep in `best`, by path.
    """

    group: str
    candidates: tuple[RateCandidate, ...]
    best: RateCandidate | None
    edges: dict[str, Edge]

    @property
    def shown(self) -> RateCandidate:
        """The best, or the first where none is complete."""
        return self.best or self.candidates[0]


def choices(
    grid: AblationGrid, outcomes: Mapping[GridRun, Outcome], metric: Metric
) -> tuple[Choice, ...]:
    """The best rates of every cell."""
    values: list[list[float]] = [[] for _ in grid.cells]
    for run, outcome in outcomes.items():
        value = metric.of(outcome)
        if value is not None:
            values[run.cell].append(value)
    groups: dict[str, list[RateCandidate]] = {}
    for n, cell in enumerate(grid.cells):
        found = values[n]
        score = estimate(found) if found else None
        candidate = RateCandidate(cell, n, score, len(found), len(found) == grid.seeds)
        groups.setdefault(cell.group, []).append(candidate)
    return tuple(_choice(group, found, metric) for group, found in groups.items())


def _choice(group: str, candidates: Sequence[RateCandidate], metric: Metric) -> Choice:
    scored = [(x.score.mean, x) for x in candidates if x.complete and x.score is not None]
    best = min(scored, key=lambda pair: metric.gap(pair[0], 0.0))[1] if scored else None
    return Choice(group, tuple(candidates), best, {} if best is None else _edges(candidates, best))


def _edges(candidates: Sequence[RateCandidate], best: RateCandidate) -> dict[str, Edge]:
    """Where the sweep ends at the best rate. Rates at which runs diverged belong to the sweep."""
    edges: dict[str, Edge] = {}
    for place, rate in enumerate(best.cell.rates):
        tried = [candidate.cell.rates[place].value for candidate in candidates]
        if rate.value == min(tried):
            edges[rate.path] = "lowest"
        elif rate.value == max(tried):
            edges[rate.path] = "highest"
    return edges


def at_best(
    grid: AblationGrid, outcomes: Mapping[GridRun, Outcome], chosen: Sequence[Choice]
) -> tuple[AblationGrid, dict[GridRun, Outcome], list[int]]:
    """The grid of the cells at their best rates, its outcomes, and their places in the grid."""
    kept = [choice.shown for choice in chosen]
    base = grid.cells[grid.base].group
    reduced = dataclasses.replace(
        grid,
        cells=tuple(dataclasses.replace(c.cell, name=c.cell.group) for c in kept),
        base=[choice.group for choice in chosen].index(base),
    )
    known = {run.slug: outcome for run, outcome in outcomes.items()}
    found = {run: known[run.slug] for run in reduced.runs if run.slug in known}
    return reduced, found, [candidate.index for candidate in kept]


def spread_of(choice: Choice, path: str) -> list[tuple[float, RateCandidate]]:
    """The curve of a cell over one rate, ascending, the other rate at its best.

    Args:
        choice: of the cell.
        path: of the rate.
    """
    others = {rate.path: rate.value for rate in choice.shown.cell.rates if rate.path != path}
    found = []
    for candidate in choice.candidates:
        rates = {rate.path: rate.value for rate in candidate.cell.rates}
        if path in rates and all(rates[other] == value for other, value in others.items()):
            found.append((rates[path], candidate))
    return sorted(found, key=lambda pair: pair[0])


def is_finite(candidate: RateCandidate) -> bool:
    """Whether a mean is known."""
    return candidate.score is not None and bool(np.isfinite(candidate.score.mean))
