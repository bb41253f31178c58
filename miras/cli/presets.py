"""The command `miras presets`: lists the named models."""

import argparse
from typing import Any

from miras.cli.options import add_markdown
from miras.cli.output import print_tables


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "presets",
        help="list the presets and their parts",
        description="List the presets (named models): their four parts, state and paper; with "
        "--markdown also their update equations.",
    )
    add_markdown(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.analysis.describe import presets_markdown, presets_table

    if args.markdown:
        print(presets_markdown())
    else:
        print_tables(presets_table())
    return 0
