"""Options of `miras ablate` that make its cells comparable, and its `--dry-run`."""

import argparse
from typing import TYPE_CHECKING

from miras.cli.output import print_line

if TYPE_CHECKING:
    from rich.console import Console

    from miras.analysis.ablate.grid import AblationGrid

_BUDGETS = ("flops", "params", "state", "tokens")


def add_comparisons(parser: argparse.ArgumentParser) -> None:
    """Add `--budget`, `--sweep` and `--dry-run`."""
    parser.add_argument(
        "--budget",
        choices=_BUDGETS,
        help="match all cells to the preset: params changes mlp_ratio or width, state the memory's "
        "hidden width, heads or width, flops and tokens the number of steps; cells that cannot be "
        "matched are skipped",
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        action="extend",
        default=[],
        metavar="RATE=VALUE,VALUE[,VALUE...]",
        help="train each cell at several rates and compare cells at their best: algorithm.lr or "
        "train.learning_rate; 0.5x is a multiple of the cell's own rate, 0.01 a rate",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list the cells, their matched sizes and predicted costs; train and write nothing",
    )


def print_preview(grid: "AblationGrid", console: "Console") -> None:
    """Print what `--dry-run` shows."""
    from miras.analysis.ablate.columns import print_table
    from miras.analysis.ablate.preview import (
        preview_notes,
        preview_table,
        previews,
        this_machine,
    )

    with console.status("predicting costs"):
        machine = this_machine()
        found = previews(grid, machine)
    print_table(console, preview_table(found))
    console.print()
    for line in preview_notes(grid, found, machine):
        print_line(console, line)
