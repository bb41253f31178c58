"""The command `miras compare`: the learning curves of several runs in one figure and one page."""

import argparse
import pathlib
from typing import Any

from miras.cli.output import print_tables
from miras.config import require


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "compare",
        help="draw the learning curves of several runs",
        description="Draw the learning curves of several runs in a PNG and in a page that needs "
        "no other file, and print how they differ.",
        epilog="Example: `miras compare runs/a runs/b --out compared` writes compared.png and "
        "compared.html.",
    )
    parser.add_argument(
        "folders", nargs="+", metavar="RUN", help="folder of a run or of a grid, or a URL"
    )
    parser.add_argument(
        "--out",
        default="compared",
        metavar="NAME",
        help="name of the files, without .png and .html (default: compared)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from miras.analysis.compare.curves import read_runs
    from miras.analysis.compare.figure import learning_curves
    from miras.analysis.compare.page import page
    from miras.runtime.files import expand_home, write_atomically

    runs = read_runs(args.folders)
    out = expand_home(args.out)
    require(out.parent.is_dir(), f"--out {args.out}: {out.parent} is not a folder.")
    paths = [pathlib.Path(f"{out}{suffix}") for suffix in (".png", ".html")]
    write_atomically(paths[0], learning_curves(runs))
    write_atomically(paths[1], page(runs))
    table = Table("run", "step", "bits/byte", "training loss", box=None, pad_edge=False)
    table.add_column("differs in", overflow="fold")
    for run in runs:
        cells = [run.name, str(run.step), run.last("held_out", "bits_per_byte")]
        cells += [run.last("train", "loss"), " ".join(run.differences)]
        table.add_row(*map(Text, cells))
    print_tables(table)
    print(f"written: {paths[0]}, {paths[1]}")
    return 0
