"""Learning curves of a grid: the held-out metric by step, mean and interval over the seeds."""

from typing import NamedTuple

import numpy as np

from miras.analysis.ablate.cell_costs import CellCosts
from miras.analysis.ablate.estimate import Estimate, estimate
from miras.analysis.ablate.grid import GridCell
from miras.analysis.ablate.results import GridResults, Row

AXES = ("step", "tokens", "training FLOPs")


class CellCurve(NamedTuple):
    """A cell's curve, over the seeds whose runs have ended.

    Attributes:
        cell: the cell.
        x: steps, tokens or FLOPs, ascending.
        values: the metric at each x over all seeds.
        differences: paired to the base, at each x; empty for the base, and where it has other x.
    """

    cell: GridCell
    x: tuple[float, ...]
    values: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]


def x_axis(results: GridResults) -> str:
    """What the runs of all cells have the same amount of, of `AXES`; steps if several are."""
    known = [row.costs for row in results.rows if row.costs is not None]
    if len({(c.steps, c.step_tokens) for c in known}) <= 1:
        return "step"
    return "tokens" if len({c.tokens for c in known}) == 1 else "training FLOPs"


def cell_curves(results: GridResults) -> list[CellCurve]:
    """The curves of the cells, in the order of the rows; those without a measurement are left out.

    Each has the steps that all seeds of the cell have measured.
    """
    axis = x_axis(results)
    tables = {id(row.cell): _by_seed(results, row) for row in results.rows}
    units = {id(row.cell): _unit(axis, row.costs) for row in results.rows}
    base = tables[id(results.base)]
    base_unit = units[id(results.base)]
    found = []
    for row in results.rows:
        mine, unit = tables[id(row.cell)], units[id(row.cell)]
        steps = _common_steps(mine)
        if not steps:
            continue
        paired = row.cell is not results.base and unit == base_unit
        found.append(
            CellCurve(
                cell=row.cell,
                x=tuple(step * unit for step in steps),
                values=tuple(_at(mine, step) for step in steps),
                differences=_differences(mine, base, steps) if paired else (),
            )
        )
    return found


def _by_seed(results: GridResults, row: Row) -> dict[int, dict[int, float]]:
    """The metric by step, of each seed that is done."""
    found: dict[int, dict[int, float]] = {}
    for run, outcome in results.outcomes.items():
        if results.grid.cells[run.cell] is row.cell and outcome.status == "done":
            field = results.metric.field
            found[run.seed] = {step: x[field] for step, x in outcome.curve if field in x}
    return {seed: curve for seed, curve in found.items() if curve}


def _unit(axis: str, costs: CellCosts | None) -> float:
    """What a step adds on the axis."""
    if axis == "step" or costs is None:
        return 1.0
    return float(costs.step_tokens if axis == "tokens" else costs.step_flops)


def _common_steps(seeds: dict[int, dict[int, float]]) -> list[int]:
    if not seeds:
        return []
    return sorted(set.intersection(*(set(curve) for curve in seeds.values())))


def _at(seeds: dict[int, dict[int, float]], step: int) -> Estimate:
    return estimate(np.array([curve[step] for curve in seeds.values()]))


def _differences(
    mine: dict[int, dict[int, float]], base: dict[int, dict[int, float]], steps: list[int]
) -> tuple[Estimate, ...]:
    """At each step, over the seeds that both have; empty if the base lacks a step."""
    both = [seed for seed in mine if seed in base]
    if not both or any(step not in base[seed] for seed in both for step in steps):
        return ()
    return tuple(
        estimate(np.array([mine[seed][step] - base[seed][step] for seed in both])) for step in steps
    )
