"""The command `miras describe`: prints a model's equations, size and cost."""

import argparse
import sys
from typing import Any

from miras.cli.options import (
    DEFAULT_PRESET,
    MODEL_FIELDS,
    add_preset_and_overrides,
    add_rates,
    model_overrides,
    split_preset,
)
from miras.config import override


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "describe",
        help="print a model's equations, size and cost",
        description="Print a model's equations, composed of those of its four parts, its number of "
        "parameters, the size of its state and its FLOPs.",
    )
    parser.add_argument("--latex", action="store_true", help="print only the equations, in LaTeX")
    add_preset_and_overrides(parser, MODEL_FIELDS)
    add_rates(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.analysis.strength.swap import split_strength
    from miras.presets import find

    name, overrides = split_preset(args.overrides)
    entry = find(name or DEFAULT_PRESET)
    overrides, target = split_strength(model_overrides(overrides))
    config = override(entry.build(), *overrides)
    if args.latex:
        from miras.analysis.equation import equations

        print(equations(config, latex=True))
        return 0
    from miras.analysis.describe import description
    from miras.analysis.strength.swap import settle

    config = settle(config, entry.build(), overrides, args.rates, target=target)

    print(_encodable(description(entry, config)))
    return 0


def _encodable(text: str) -> str:
    """The text, with ASCII in place of symbols that the terminal's encoding lacks."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        from miras.analysis.equation.text import ascii_of

        return ascii_of(text)
    return text
