"""Results for people: tables in Markdown and on a terminal.

`results` computes the numbers, `notes` explains them, `records` writes files for programs, and
`plot` draws the figure.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from miras.analysis.ablate.effects import Effect
from miras.analysis.ablate.estimate import Estimate
from miras.analysis.ablate.grid import AblationGrid, grouped
from miras.analysis.ablate.notes import NONE, count, notes
from miras.analysis.ablate.results import GridResults, Row


class _Column(NamedTuple):
    """A column of a table: its name, whether it holds numbers, and the text of a row's entry."""

    name: str
    numeric: bool
    show: Callable[[Any], str]


def markdown(results: GridResults) -> str:
    """The tables, notes and failures in Markdown."""
    grid = results.grid
    fixed = f", with {', '.join(f'{k}={v}' for k, v in grid.fixed.items())}" if grid.fixed else ""
    parts = [f"# Ablation of {grid.title}", f"{heading(results)}{fixed}.", "## Cells"]
    parts.append(_markdown_table(_cell_columns(results), results.rows))
    if results.effects:
        parts += ["## Main effects", _markdown_table(_effect_columns(results), results.effects)]
    parts += list(notes(results))
    if grid.illegal:
        lines = (
            f"{'; '.join(cell.name for cell in cells)}: {reason}"
            for reason, cells in grouped(grid.illegal).items()
        )
        parts += ["## Illegal cells", _list(lines)]
    failures = list(_failures(results))
    if failures:
        parts += ["## Runs that did not finish", _list(failures)]
    parts.append("![main effects and ranked cells](plot.png)")
    return "\n\n".join(parts) + "\n"


def tables(results: GridResults) -> Iterator[Table]:
    """Tables of cells and main effects for a terminal."""
    yield _rich_table(_cell_columns(results), results.rows)
    if results.effects:
        yield _rich_table(_effect_columns(results), results.effects)


def heading(results: GridResults) -> str:
    """The number of cells and seeds."""
    grid = results.grid
    illegal = f" and {count(len(grid.illegal), 'illegal one')}" if grid.illegal else ""
    return f"{count(len(grid.cells), 'cell')}{illegal}, {count(grid.seeds, 'seed')} each"


def illegal_lines(grid: AblationGrid) -> Iterator[str]:
    """One line for each reason for which cells are illegal."""
    for reason, cells in grouped(grid.illegal).items():
        names = "; ".join(cell.name for cell in cells[:3])
        more = f"; and {len(cells) - 3} more" if len(cells) > 3 else ""
        yield f"skipped {names}{more}: {reason}"


def _failures(results: GridResults) -> Iterator[str]:
    for row in results.rows:
        for run, reason in results.unfinished(row):
            yield f"{run.name}, seed {run.seed}: {reason}"


def _cell_columns(results: GridResults) -> list[_Column]:
    grid = results.grid
    columns = [_Column("rank", True, lambda row: NONE if row.rank is None else str(row.rank))]
    for axis in grid.axes:
        columns.append(_Column(axis, False, lambda row, axis=axis: row.cell.levels[axis]))
    if len(grid.cells) > 1:
        columns.append(_Column("difference to base", True, lambda row: _to_base(results, row)))
        if grid.seeds > 1:
            columns.append(_Column("p (Holm)", True, _p))
    columns.append(_Column(results.metric.name, True, lambda row: _estimate(row.score)))
    if any(row.rank is None for row in results.rows):
        columns.append(_Column("seeds", True, lambda row: f"{len(row.values)} of {grid.seeds}"))
    columns.append(
        _Column("parameters", True, lambda row: f"{row.parameters:,}" if row.parameters else NONE)
    )
    return columns


def _effect_columns(results: GridResults) -> list[_Column]:
    def mean(effect: Effect) -> str:
        value = results.adjusted(effect)
        return NONE if value is None else f"{value:.4f}"

    return [
        _Column("axis", False, lambda effect: effect.axis),
        _Column("level", False, lambda effect: effect.level),
        _Column("cells", True, lambda effect: str(effect.cells)),
        _Column("mean" if results.balanced else "adjusted mean", True, mean),
        _Column("effect", True, lambda effect: _estimate(effect.effect, signed=True)),
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


def _markdown_table(columns: Sequence[_Column], rows: Sequence[Any]) -> str:
    escape = lambda text: text.replace("|", "\\|")  # noqa: E731
    lines = [
        [escape(column.name) for column in columns],
        ["---:" if column.numeric else "---" for column in columns],
        *([escape(column.show(row)) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rich_table(columns: Sequence[_Column], rows: Sequence[Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(
            Text(column.name), justify="right" if column.numeric else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(Text(column.show(row)) for column in columns))
    return table
