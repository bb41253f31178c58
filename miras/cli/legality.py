"""The command `miras legality`: lists the combinations of parts that are invalid."""

import argparse
from typing import Any

from miras.cli.options import add_markdown
from miras.cli.output import print_tables


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "legality",
        help="list the invalid combinations of parts",
        description="List the invalid combinations of parts, the reason for each, and a valid "
        "alternative.",
    )
    add_markdown(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.analysis import refusals

    if args.markdown:
        print(refusals.markdown())
    else:
        print_tables(*refusals.tables())
    return 0
