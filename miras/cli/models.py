"""The command `miras models`: prints and plots which model leads to which by which change."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from miras.cli.output import print_line, print_tables

if TYPE_CHECKING:
    from rich.table import Table

    from miras.analysis.lineage import Relative


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "models",
        help="show which model leads to which by which change",
        description="Print the presets as a tree. Each follows the earlier model whose config is "
        "nearest to its own, with the parts and options that change; --plot draws the tree over "
        "the years of the papers, with a colour for each family.",
        epilog="Example: `miras models --plot models.png`.",
    )
    parser.add_argument("--plot", metavar="FILE.png", help="where to write the figure")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from miras.analysis.lineage import lineage
    from miras.analysis.lineage.plot import lineage_plot
    from miras.runtime.figures import write_figure

    tree, console = lineage(), Console()
    print_tables(_table(tree))
    if args.plot is not None and write_figure(
        pathlib.Path(args.plot),
        lambda: lineage_plot(tree),
        lambda reason: print_line(console, reason),
    ):
        print_line(console, f"written: {args.plot}")
    return 0


def _table(tree: "list[Relative]") -> "Table":
    from rich.table import Table

    rows = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    rows.add_column("model", no_wrap=True)
    rows.add_column("year", no_wrap=True)
    rows.add_column("what changes")
    for model in tree:
        name = " " * model.depth + model.preset.name
        rows.add_row(name, str(int(model.date)), ", ".join(model.changes))
    return rows
