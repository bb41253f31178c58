"""The command `miras match`: finds the width at which a model has a given number of parameters."""

import argparse
from typing import Any

from miras.cli.options import model_overrides
from miras.config import require


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "match",
        help="find the width at which a preset has a number of parameters",
        description="Print the `miras train` command with the width and mlp_ratio at which a "
        "preset has a number of parameters, to within 1 %.",
        epilog="Example: `miras match yaad --params 25M layers=12 heads=8`.",
    )
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="PRESET [KEY=VALUE ...]",
        help="a preset, and fields that keep the value given",
    )
    parser.add_argument(
        "--params", required=True, metavar="N", help="number of parameters, such as 25M"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.analysis.match import match, parse_size, size_of
    from miras.config import override
    from miras.presets import preset

    name, *overrides = args.overrides
    require("=" not in name, f"{name!r} is not a preset: write `miras match PRESET {name}`.")
    config = override(preset(name), *model_overrides(overrides))
    fixed = any(word.partition("=")[0].split(".")[-1] == "width" for word in overrides)
    found = match(config, parse_size(args.params), fixed_width=fixed)
    fields = [*overrides, f"width={found.width}", f"mlp_ratio={found.mlp_ratio:.6g}"]
    fields = " ".join(dict.fromkeys(fields))
    print(f"miras train {name} {fields}   # {size_of(found):,} parameters")
    return 0
