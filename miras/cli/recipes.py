"""The command `miras recipes`: lists the named runs."""

import argparse
from typing import TYPE_CHECKING, Any

from miras.cli.options import DEFAULT_PRESET
from miras.cli.output import print_tables

if TYPE_CHECKING:
    from rich.table import Table


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "recipes",
        help="list the named runs",
        description="List the recipes, named runs of the literature that train any preset: size, "
        "tokens, updates, batch, and the slices of TPUs on which a step fits.",
        epilog="Examples: `miras train moneta --recipe miras-340m-15b --on v5e-16`, `miras train "
        "--recipe miras-170m-15b steps=2000 --dry-run`.",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    del args
    print_tables(_table())
    return 0


def _grouped(slices: tuple[str, ...]) -> str:
    """Names of slices by generation, as in "v5e-16/64, v6e-64"."""
    sizes: dict[str, list[str]] = {}
    for name in slices:
        kind, _, size = name.rpartition("-")
        sizes.setdefault(kind, []).append(size)
    return ", ".join(f"{kind}-{'/'.join(found)}" for kind, found in sizes.items())


def _table() -> "Table":
    from rich.table import Table

    from miras.presets import preset
    from miras.recipes import recipes

    rows = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    rows.add_column("recipe", no_wrap=True)
    rows.add_column("layers x width", no_wrap=True)
    for name in ("tokens", "updates", "batch"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("slices", overflow="fold")
    for recipe in recipes().values():
        config = recipe.build(preset(DEFAULT_PRESET))
        model, data, train = config.model, config.data, config.train
        times = f"{train.accumulate} x " if train.accumulate > 1 else ""
        rows.add_row(
            recipe.name,
            f"{model.layers} x {model.width}",
            f"{recipe.tokens / 1e9:g} B",
            f"{train.steps:,}",
            f"{times}{data.batch} x {data.sequence}",
            _grouped(recipe.slices),
        )
    return rows
