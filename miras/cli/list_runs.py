"""The command `miras runs`: a table of the runs in a folder."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from miras.cli.options import add_markdown
from miras.cli.output import print_tables

if TYPE_CHECKING:
    from miras.analysis.runs.listing import RunSummary


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "runs",
        help="list runs with their state and how they differ",
        description="List the runs in a folder: which of them run, their last measurements, and "
        "the fields in which their configs differ.",
        epilog="Examples: `miras runs`, `miras runs gs://bucket/runs`, `miras runs --json`.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default="runs",
        metavar="DIR",
        help="folder of runs, of one run or of a grid, or gs://... or s3://... (default: runs)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a run")
    add_markdown(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.analysis.runs.listing import list_runs

    runs = list_runs(args.folder)
    if args.json:
        for run in runs:
            print(json.dumps(run._asdict()))
    elif args.markdown:
        print("\n".join(_markdown(runs)))
    elif runs:
        print_tables(_table(runs))
    else:
        print(f"{args.folder} has no runs.")
    return 0


_COLUMNS = (
    "run", "state", "step", "loss", "bits/byte", "tokens/s", "goodput", "last seen", "differs in",
)  # fmt: skip


def _cells(run: "RunSummary") -> list[str]:
    import time

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        run.name,
        run.state,
        f"{run.step}/{run.steps}",
        number(run.loss, ".3f"),
        number(run.bits_per_byte, ".3f"),
        number(run.tokens_per_second, ",.0f"),
        number(run.goodput, ".0%"),
        "" if run.seen is None else f"{_age(time.time() - run.seen)} ago",
        " ".join(run.differences),
    ]


def _table(runs: "list[RunSummary]") -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS[:-1], box=None, pad_edge=False)
    table.add_column(_COLUMNS[-1], overflow="fold", min_width=24)
    for run in runs:
        table.add_row(*map(Text, _cells(run)))
    return table


def _markdown(runs: "list[RunSummary]") -> list[str]:
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_cells, runs)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
