"""The table of an evaluation: exact match by length and depth."""

from rich import box
from rich.table import Table
from rich.text import Text

from miras.analysis.eval.results import CellScore, TaskResults


def table(results: TaskResults) -> Table:
    """Lengths in rows, depths in columns, and the 95 % interval below each share.

    It is the recall if it was measured, else the exact match.
    """
    several = len(results.depths) > 1
    made = Table(box=box.SIMPLE, pad_edge=False)
    made.add_column("length · depth", justify="right")
    for depth in results.depths:
        made.add_column(f"{depth:g}", justify="right")
    if several:
        made.add_column("mean", justify="right")
    for length in results.lengths:
        cells = [results.cells[length, depth] for depth in results.depths]
        cells += [results.of_length(length)] if several else []
        made.add_row(tokens(length), *map(_cell, cells))
    if len(results.lengths) > 1:
        made.add_section()
        cells = [results.of_depth(depth) for depth in results.depths]
        made.add_row("mean", *map(_cell, [*cells, results.all] if several else cells))
    return made


def heading(results: TaskResults) -> str:
    """The task, in words."""
    form = getattr(results.task, "form", None)
    measure = "exact match" if results.all.recall is None else "recall"
    return f"{results.name}{f' ({form})' if form else ''}: {measure} by length and depth"


def caption(results: TaskResults) -> str:
    """The number of rows, and the token accuracy."""
    cell = next(iter(results.cells.values()))
    exact = f"; exact match {results.all.exact_match:.1%}"
    return (
        f"{cell.examples} rows per cell, with 95 % intervals; "
        f"{results.all.accuracy:.1%} of all answer tokens are right"
        f"{'' if results.all.recall is None else exact}"
    )


def tokens(length: int) -> str:
    """A length as on the command line: 4096 is 4k."""
    return f"{length // 1024}k" if length % 1024 == 0 else str(length)


def _cell(cell: CellScore) -> Text:
    low, high = cell.interval if cell.recall is None else cell.recall_interval
    share = Text(f"{cell.shown:.2f}")
    return share.append(f"\n{low:.2f}–{high:.2f}", style="dim")
