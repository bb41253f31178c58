"""What a grid would cost, before anything is trained."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rich.table import Table

from miras.analysis.ablate.cell_costs import CellCosts, known_costs
from miras.analysis.ablate.columns import (
    RATE_COLUMNS,
    Column,
    bytes_text,
    changes_column,
    costs_of,
    number_text,
    rich_table,
)
from miras.analysis.ablate.grid import AblationGrid, GridCell
from miras.analysis.ablate.notes import NONE, count
from miras.analysis.ablate.rates import INNER
from miras.analysis.plan.slices import PlannedSlice
from miras.errors import ConfigError


class Preview(NamedTuple):
    """A cell before it is trained.

    Attributes:
        cell: at the first of its rates.
        rates: that it is trained at, by path.
        runs: of the cell, over its rates and seeds.
        costs: of a run; None if they cannot be counted.
        memory: predicted bytes of a chip at the peak of a step; None without a known machine.
        seconds: predicted time of a run's steps; None without a known machine.
    """

    cell: GridCell
    rates: dict[str, list[float]]
    runs: int
    costs: CellCosts | None
    memory: float | None
    seconds: float | None


def this_machine() -> PlannedSlice | None:
    """The devices of this process for `miras plan`; None for a kind that it does not know.

    A CPU is measured, which takes a second.
    """
    import jax

    from miras.analysis.plan.cpu import measured
    from miras.analysis.utilization import chip_of

    devices = jax.devices()
    if devices[0].platform == "cpu":
        return PlannedSlice(measured(), (len(devices),), 1, "this CPU")
    chip = chip_of(devices[0].device_kind)
    return None if chip is None else PlannedSlice(chip, (len(devices),), 1, devices[0].device_kind)


def previews(grid: AblationGrid, machine: PlannedSlice | None) -> list[Preview]:
    """One for each cell of the grid, at the first of its rates."""
    groups: dict[str, list[GridCell]] = {}
    for cell in grid.cells:
        groups.setdefault(cell.group, []).append(cell)
    found = []
    for cells in groups.values():
        memory, seconds = _predicted(cells[0], machine)
        costs = known_costs(cells[0].config)
        rates: dict[str, list[float]] = {}
        for rate in (rate for cell in cells for rate in cell.rates):
            rates.setdefault(rate.path, []).append(rate.value)
        runs = len(cells) * grid.seeds
        found.append(Preview(cells[0], rates, runs, costs, memory, seconds))
    return found


def _predicted(cell: GridCell, machine: PlannedSlice | None) -> tuple[float | None, float | None]:
    from miras.analysis.plan.job import Job
    from miras.analysis.plan.predict import predict

    if machine is None:
        return None, None
    try:
        plan = predict(Job(cell.config, machine))
    except ConfigError:  # a mesh for other devices
        return None, None
    return plan.memory.peak, plan.step * cell.config.train.steps


def preview_table(found: Sequence[Preview]) -> Table:
    """The cells, their sizes and the predicted costs of a run."""
    columns = [Column("cell", False, lambda row: row.cell.group)]
    if any(row.cell.changes for row in found):
        columns.append(changes_column(lambda row: row.cell))
    swept = list(dict.fromkeys(path for row in found for path in row.rates))
    columns += [Column(path, True, functools.partial(_rates, path=path)) for path in swept]
    own = costs_of(lambda row: row.costs, found)
    columns += own[RATE_COLUMNS:] if INNER in swept else own
    if not any(column.name == "FLOPs" for column in columns):
        columns.append(Column("FLOPs", True, _flops))
    if any(row.seconds is not None for row in found):
        columns.append(Column("memory", True, lambda row: _known(row.memory, bytes_text)))
        columns.append(Column("time", True, lambda row: _known(row.seconds, seconds_text)))
    columns.append(Column("runs", True, lambda row: str(row.runs)))
    return rich_table(columns, found)


def preview_notes(
    grid: AblationGrid, found: Sequence[Preview], machine: PlannedSlice | None
) -> Iterator[str]:
    """The totals, and what predictions rest on."""
    swept = "".join(f" x {len(values)} of {path}" for path, values in grid.swept.items())
    runs = sum(row.runs for row in found)
    total = sum(row.runs * row.costs.flops for row in found if row.costs is not None)
    yield (
        f"{count(len(found), 'cell')}{swept} x {count(grid.seeds, 'seed')} = "
        f"{count(runs, 'run')}, {number_text(total)} model FLOPs in all. Nothing was trained or "
        "written, and no text was read."
    )
    if grid.without_preset:
        yield (
            f"Warning: no cell is the preset {grid.title}; differences would be to the first cell, "
            f"{grid.cells[0].group}."
        )
    known = [row for row in found if row.seconds is not None]
    if machine is not None and known:
        hours = sum(row.runs * (row.seconds or 0) for row in known)
        yield (
            f"Predicted for {machine.name} (`miras plan`): {seconds_text(hours)} of training steps "
            "in all, one run at a time; without compilation and evaluation. Memory is that of a "
            "device at the peak of a step."
        )
    elif machine is None:
        yield "This device is not known to `miras plan`: neither time nor memory is predicted."


def seconds_text(value: float) -> str:
    """A time in its largest unit."""
    for name, size in (("h", 3600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} s"


def _rates(row: Preview, path: str) -> str:
    """The rates of a cell, ascending."""
    return ", ".join(f"{rate:.3g}" for rate in sorted(set(row.rates.get(path, [])))) or NONE


def _flops(row: Preview) -> str:
    return NONE if row.costs is None else number_text(row.costs.flops)


def _known(value: float | None, show: Callable[[float], str]) -> str:
    return NONE if value is None else show(value)
