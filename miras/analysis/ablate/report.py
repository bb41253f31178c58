"""Results for people: tables in Markdown and on a terminal.

`results` computes the numbers, `notes` explains them, `records` writes files for programs, and
`plot` draws the figure.
"""

from collections.abc import Iterable, Iterator

from rich.table import Table

from miras.analysis.ablate.budget import NAMES
from miras.analysis.ablate.columns import (
    Column,
    changes_column,
    costs_of,
    markdown_table,
    rich_table,
    speed_columns,
)
from miras.analysis.ablate.effects import Effect
from miras.analysis.ablate.estimate import Estimate
from miras.analysis.ablate.grid import AblationGrid, grouped
from miras.analysis.ablate.notes import NONE, count, notes
from miras.analysis.ablate.rates_report import rate_columns, rate_notes
from miras.analysis.ablate.results import GridResults, Row


def markdown(results: GridResults) -> str:
    """The tables, notes and failures in Markdown."""
    grid = results.grid
    fixed = f", with {', '.join(f'{k}={v}' for k, v in grid.fixed.items())}" if grid.fixed else ""
    parts = [f"# Ablation of {grid.title}", f"{heading(results)}{fixed}."]
    every = results.all_runs
    ended, runs = len(every.outcomes), len(every.grid.runs)
    if ended < runs:
        parts.append(f"{ended} of {runs} runs have ended.")
    parts.append("## Cells")
    parts.append(markdown_table(_cell_columns(results), results.rows))
    if columns := cost_columns(results):
        parts += ["## Rates and costs", markdown_table(columns, results.rows)]
    if results.effects:
        parts += ["## Main effects", markdown_table(_effect_columns(results), results.effects)]
    if results.choices:
        parts += ["## Best rates", markdown_table(rate_columns(results), results.choices)]
    parts += list(all_notes(results))
    if grid.illegal:
        lines = (
            f"{'; '.join(cell.name for cell in cells)}: {reason}"
            for reason, cells in grouped(grid.illegal).items()
        )
        parts += ["## Illegal cells", _list(lines)]
    failures = list(_failures(results))
    if failures:
        parts += ["## Runs that did not finish", _list(failures)]
    if ended == runs:
        parts.append("![main effects and ranked cells](plot.png)")
        if any(len(outcome.curve) > 1 for outcome in results.outcomes.values()):
            parts.append("![learning curves](curves.png)")
        if any(choice.best is not None for choice in results.choices):
            parts.append("![the metric over rates](rates.png)")
    return "\n\n".join(parts) + "\n"


def tables(results: GridResults) -> Iterator[Table]:
    """Tables of cells, their costs and main effects for a terminal."""
    yield rich_table(_cell_columns(results), results.rows)
    if columns := cost_columns(results):
        yield rich_table(columns, results.rows)
    if results.choices:
        yield rich_table(rate_columns(results), results.choices)
    if results.effects:
        yield rich_table(_effect_columns(results), results.effects)


def all_notes(results: GridResults) -> Iterator[str]:
    """Explanations of all tables, and warnings."""
    yield from notes(results)
    if results.choices:
        yield from rate_notes(results)


def heading(results: GridResults) -> str:
    """The number of cells and seeds."""
    grid = results.grid
    illegal = f" and {count(len(grid.illegal), 'illegal one')}" if grid.illegal else ""
    rates = "" if not results.choices else f", {len(results.all_runs.grid.cells)} with their rates"
    cells = f"{count(len(grid.cells), 'cell')}{illegal}{rates}"
    budget = "" if grid.budget is None else f", with equal {NAMES[grid.budget]}"
    return f"{cells}, {count(grid.seeds, 'seed')} each{budget}"


def illegal_lines(grid: AblationGrid) -> Iterator[str]:
    """One line for each reason for which cells are illegal."""
    for reason, cells in grouped(grid.illegal).items():
        names = "; ".join(cell.name for cell in cells[:3])
        more = f"; and {len(cells) - 3} more" if len(cells) > 3 else ""
        yield f"skipped {names}{more}: {reason}"


def _failures(results: GridResults) -> Iterator[str]:
    for run, outcome in results.all_runs.outcomes.items():
        if outcome.status != "done":
            yield f"{run.name}, seed {run.seed}: {outcome.status}, {outcome.reason}"


def label_columns(results: GridResults) -> list[Column]:
    """The rank of a cell and its levels."""
    columns = [Column("rank", True, lambda row: NONE if row.rank is None else str(row.rank))]
    for axis in results.grid.axes:
        columns.append(Column(axis, False, lambda row, axis=axis: row.cell.levels[axis]))
    return columns


def cost_columns(results: GridResults) -> list[Column]:
    """Rates, sizes and speed of the cells; empty if no costs are known."""
    if all(row.costs is None for row in results.rows):
        return []
    columns = label_columns(results)
    if any(row.cell.changes for row in results.rows):
        columns.append(changes_column(lambda row: row.cell))
    columns += costs_of(lambda row: row.costs, results.rows)
    return columns + speed_columns(results.rows)


def _cell_columns(results: GridResults) -> list[Column]:
    grid = results.grid
    columns = label_columns(results)
    if len(grid.cells) > 1:
        columns.append(Column("difference to base", True, lambda row: _to_base(results, row)))
        if grid.seeds > 1:
            columns.append(Column("p (Holm)", True, _p))
    columns.append(Column(results.metric.name, True, lambda row: _estimate(row.score)))
    if any(row.rank is None for row in results.rows):
        columns.append(Column("seeds", True, lambda row: f"{len(row.values)} of {grid.seeds}"))
    return columns


def _effect_columns(results: GridResults) -> list[Column]:
    def mean(effect: Effect) -> str:
        value = results.adjusted(effect)
        return NONE if value is None else f"{value:.4f}"

    return [
        Column("axis", False, lambda effect: effect.axis),
        Column("level", False, lambda effect: effect.level),
        Column("cells", True, lambda effect: str(effect.cells)),
        Column("mean" if results.balanced else "adjusted mean", True, mean),
        Column("effect", True, lambda effect: _estimate(effect.effect, signed=True)),
    ]


def _to_base(results: GridResults, row: Row) -> str:
    if row.cell is results.base:
        return "base"
    return NONE if row.difference is None else _estimate(row.difference.estimate, signed=True)


def _p(row: Row) -> str:
    if row.difference is None or row.difference.holm is None:
        return NONE
    return "< 0.001" if row.difference.holm < 0.001 else f"{row.difference.holm:.3f}"


def _estimate(found: Estimate | None, signed: bool = False) -> str:
    if found is None:
        return NONE
    half = "" if found.half is None else f" ± {found.half:.4f}"
    return f"{found.mean:{'+' if signed else ''}.4f}{half}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
