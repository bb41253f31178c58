"""The command `miras profile`: what takes the time of a step."""

import argparse
import re
from typing import Any

from miras.cli.options import add_run_folder
from miras.cli.output import print_tables
from miras.config import require

_JAX = re.compile(r"jit\(step\)/|closed_call/|while/body/|jit\(_run\)/")  # what every name has


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "profile",
        help="print the operations that take the time of a step",
        description="Print the operations that take the time of the profiled steps of a run, and "
        "the shares of its memories, of their kernels and of collectives.",
        epilog="Example: `miras train yaad profile=100:103 --out runs/mine`, then `miras profile "
        "runs/mine`. XProf shows the same trace: `tensorboard --logdir runs/mine/profile`.",
    )
    add_run_folder(parser)
    parser.add_argument(
        "--top", type=int, default=20, metavar="N", help="operations to print (default: 20)"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from rich.table import Table

    from miras.analysis.profile import read_profile
    from miras.runtime.files import expand_home

    require(args.top >= 1, f"--top {args.top} must be at least 1.")
    found = read_profile(expand_home(args.folder))
    table = Table(box=None, pad_edge=False)
    table.add_column("operation", overflow="ellipsis")
    for figure in ("ms a step", "share", "times"):  # names are cut, figures are not
        table.add_column(figure, no_wrap=True, justify="right")
    table.add_column("of", overflow="ellipsis")
    for operation in found.operations[: args.top]:
        table.add_row(
            operation.name,
            f"{1e3 * operation.seconds:.3f}",
            f"{operation.seconds / max(found.seconds, 1e-12):.1%}",
            f"{operation.count:.3g}",
            ("memory:" if operation.of_memory else "") + _JAX.sub("", operation.origin),
        )
    print_tables(table)
    print(
        f"steps {found.first} to {found.last}: {1e3 * found.seconds:.3f} ms of operations a step; "
        f"memories {found.share('of_memory'):.1%} (their kernels {found.memory_kernels:.1%}), "
        f"collectives {found.share('is_collective'):.1%}"
    )
    return 0
