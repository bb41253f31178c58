"""Tables of cells in Markdown and on a terminal, and the columns of their costs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from miras.analysis.ablate.cell_costs import CellCosts
from miras.analysis.ablate.grid import GridCell
from miras.analysis.ablate.notes import NONE

_DECIMAL = ("", " k", " M", " G", " T", " P", " E")
RATE_COLUMNS = 2  # of `costs_of`, the first ones
_WIDEST = 10_000  # letters of a line
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


class Column(NamedTuple):
    """A column of a table: its name, whether it holds numbers, and the text of a row's entry."""

    name: str
    numeric: bool
    show: Callable[[Any], str]


def costs_of(costs: Callable[[Any], CellCosts | None], rows: Sequence[Any]) -> list[Column]:
    """Columns of rates, sizes and FLOPs; those of the whole run only where they differ.

    Args:
        costs: of a row.
        rows: of the table.
    """

    def column(name: str, show: Callable[[CellCosts], str]) -> Column:
        def shown(row: Any) -> str:
            found = costs(row)
            return NONE if found is None else show(found)

        return Column(name, True, shown)

    known = [found for row in rows if (found := costs(row)) is not None]
    columns = [
        column("inner rate", lambda c: ", ".join(f"{r.lr:.3g}" for r in c.rates) or NONE),
        column("strength", _strengths),
        column("state", lambda c: bytes_text(c.state_bytes)),
        column("parameters", lambda c: f"{c.parameters:,}"),
        column("FLOPs/token", lambda c: number_text(c.token_flops)),
    ]
    if len({(c.steps, c.step_tokens) for c in known}) > 1:
        columns.append(column("steps", lambda c: f"{c.steps:,}"))
        columns.append(column("tokens", lambda c: number_text(c.tokens)))
        columns.append(column("FLOPs", lambda c: number_text(c.flops)))
    return columns


def changes_column(cell: Callable[[Any], GridCell]) -> Column:
    """What was changed in a cell so that it matches the grid's budget."""

    def shown(row: Any) -> str:
        return ", ".join(map(_short, cell(row).changes)) or NONE

    return Column("changed to match", False, shown)


def speed_columns(rows: Sequence[Any]) -> list[Column]:
    """Columns of what runs measured; the utilisation only where it is known."""
    columns = [
        Column("tokens/s", True, lambda row: _known(row.tokens_per_second, "{:,.0f}")),
        Column("time", True, lambda row: _known(row.seconds, "{:,.0f} s")),
    ]
    if any(row.utilization is not None for row in rows):
        columns.insert(1, Column("MFU", True, lambda row: _known(row.utilization, "{:.1%}")))
    return columns


def number_text(value: float) -> str:
    """A number in three digits with a unit, as in "8.65 M"."""
    power = 0
    while value >= 999.5 and power < len(_DECIMAL) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g}{_DECIMAL[power]}"


def bytes_text(value: float) -> str:
    """A number of bytes in three digits, as in "1.02 MiB"."""
    power = 0
    while value >= 1000 and power < len(_BINARY) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.3g} {_BINARY[power]}"


def _short(assignment: str) -> str:
    """An assignment with a number in four digits, as in "mlp_ratio=2.667"."""
    path, _, text = assignment.partition("=")
    name = path.rpartition(".")[2]
    return f"{name}={float(text):.4g}" if "." in text else f"{name}={text}"


def _strengths(costs: CellCosts) -> str:
    found = (NONE if r.strength is None else f"{r.strength:.3f}" for r in costs.rates)
    return ", ".join(found) or NONE


def _known(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def markdown_table(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """A table in Markdown."""
    escape = lambda text: text.replace("|", "\\|")  # noqa: E731
    lines = [
        [escape(column.name) for column in columns],
        ["---:" if column.numeric else "---" for column in columns],
        *([escape(column.show(row)) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rich_table(columns: Sequence[Column], rows: Sequence[Any]) -> Table:
    """A table for a terminal, in which names are wrapped and figures are not."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        side = "right" if column.numeric else "left"
        least = max([len(column.show(row)) for row in rows] if column.numeric else [8], default=1)
        table.add_column(Text(column.name), justify=side, min_width=least, overflow="fold")
    for row in rows:
        table.add_row(*(Text(column.show(row)) for column in columns))
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table; in full width where the output is no terminal."""
    if console.is_terminal:
        console.print(table)
        return
    before = console.width
    free = console.options.update(width=_WIDEST, max_width=_WIDEST)
    console.width = max(before, Measurement.get(console, free, table).maximum)
    try:
        console.print(table)
    finally:
        console.width = before
