"""Results for people: tables and notes in Markdown and on a terminal.

`results` computes the numbers, `records` writes files for programs, `plot` draws the figure.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from miras.analysis.ablate.grid import AblationGrid, grouped
from miras.analysis.ablate.results import Effect, Estimate, GridResults, Row

_NONE = "–"


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
    illegal = f" and {_count(len(grid.illegal), 'illegal one')}" if grid.illegal else ""
    return f"{_count(len(grid.cells), 'cell')}{illegal}, {_count(grid.seeds, 'seed')} each"


def notes(results: GridResults) -> Iterator[str]:
    """Explanations of the tables."""
    grid = results.grid
    better = "lower" if results.metric.less_is_better else "higher"
    interval = (
        "± is the half-width of the 95 % confidence interval (Student's t over the seeds)"
        if grid.seeds > 1
        else "one seed gives no interval, so small differences are not significant"
    )
    yield (
        f"Held-out {results.metric.name}, {better} is better; {interval}. Gap to best: the "
        "difference to the cell of rank 1, averaged over the differences of each seed."
    )
    yield from _texts(grid)
    if not results.effects:
        return
    sign = "Negative" if results.metric.less_is_better else "Positive"
    if results.balanced:
        method = "the mean of the cells with that level, minus the mean of all cells"
    else:
        every = " × ".join(str(len(values)) for values in grid.axes.values())
        method = (
            "the design is unbalanced, so effects are those of an additive model, fitted by least "
            f"squares to the {_count(results.complete, 'complete cell')} of {every} combinations; "
            "they assume that axes do not interact"
        )
    yield f"Main effects: {method}. {sign} is better."
    if any(effect.effect is None for effect in results.effects):
        yield (
            f"{_NONE}: not estimable, since no complete cell has the level, or every such cell has "
            "the same level of another axis."
        )
    if results.explained is not None:
        yield (
            f"Main effects explain {results.explained:.0%} of the variance between cells; the rest "
            "is interaction between axes, and noise."
        )


def _texts(grid: AblationGrid) -> Iterator[str]:
    """A note if cells were not evaluated on the same data."""
    groups: dict[str, list[str]] = {}
    for cell in grid.cells:
        if cell.held_out is not None:
            groups.setdefault(cell.held_out, []).append(cell.name)
    if len(groups) > 1:
        some = "; ".join(f"{names[0]} ({_count(len(names), 'cell')})" for names in groups.values())
        yield (
            f"Warning: cells are evaluated on {len(groups)} different samples of held-out data "
            f"({some}), so that their differences are also those of the data. The length of rows, "
            "the rows of a batch, eval_batches, the source and the tokenizer must be the same."
        )


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
    columns = [_Column("rank", True, lambda row: _NONE if row.rank is None else str(row.rank))]
    for axis in grid.axes:
        columns.append(_Column(axis, False, lambda row, axis=axis: row.cell.levels[axis]))
    columns.append(_Column(results.metric.name, True, lambda row: _estimate(row.score)))
    if len(grid.cells) > 1:
        columns.append(_Column("gap to best", True, lambda row: _gap(row)))
    if any(row.rank is None for row in results.rows):
        columns.append(_Column("seeds", True, lambda row: f"{len(row.values)} of {grid.seeds}"))
    columns.append(
        _Column("parameters", True, lambda row: f"{row.parameters:,}" if row.parameters else _NONE)
    )
    return columns


def _effect_columns(results: GridResults) -> list[_Column]:
    def mean(effect: Effect) -> str:
        value = results.adjusted(effect)
        return _NONE if value is None else f"{value:.4f}"

    return [
        _Column("axis", False, lambda effect: effect.axis),
        _Column("level", False, lambda effect: effect.level),
        _Column("cells", True, lambda effect: str(effect.cells)),
        _Column("mean" if results.balanced else "adjusted mean", True, mean),
        _Column("effect", True, lambda effect: _estimate(effect.effect, signed=True)),
    ]


def _gap(row: Row) -> str:
    return _NONE if row.rank == 1 else _estimate(row.gap, signed=True)


def _estimate(found: Estimate | None, signed: bool = False) -> str:
    if found is None:
        return _NONE
    half = "" if found.half is None else f" ± {found.half:.4f}"
    return f"{found.mean:{'+' if signed else ''}.4f}{half}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


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
