"""The command line: reads arguments, calls what does the work, and says what came of it.

What only one command needs is imported inside it: help and tables start no jax backend and load no
data library.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from miras import __version__
from miras.analysis import match
from miras.cli import ablate, generate, inspect, staleness, stream, train
from miras.cli import eval as evaluate
from miras.cli.arguments import Parser, parse
from miras.cli.words import DEFAULT, add_words, split
from miras.config import override, plugins
from miras.config.trust import trusting
from miras.errors import ConfigError, fail
from miras.runtime.notices import notices
from miras.runtime.signals import Interrupted
from miras.runtime.terminal import tolerant_output

if TYPE_CHECKING:
    from rich.table import Table

    from miras.train import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments; those of the process if not given.

    Returns:
        The exit code: 0, 1 where a run met NaN or infinity or the system refused something, 2 for
        what the user can mend, 130 after SIGINT, 143 after SIGTERM.
    """
    with tolerant_output():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        parser, commands = _parser()
        args = parse(parser, commands, sys.argv[1:] if argv is None else argv)
        if getattr(args, "out", None) == "":
            parser.error("--out is empty, but has to name a folder")
        for source in getattr(args, "plugin", None) or ():
            plugins.load(source)
        with notices(), trusting(getattr(args, "trust_plugins", False)):
            return args.run(args)
    except ConfigError as error:
        return fail(error, 2)
    except (OSError, MemoryError, OverflowError, RecursionError) as error:
        told = str(error) or type(error).__name__
        return fail(f"{told}: check the paths and sizes that the command was given.", 1)
    except KeyboardInterrupt:
        return fail("interrupted; a run goes on from its last checkpoint.", 130)
    except Interrupted as end:
        return fail(end, end.number + 128)
    except SystemExit as end:  # argparse ends `--help` and `--version` so
        return end.code if isinstance(end.code, int) else 0


def _parser() -> tuple[Parser, Any]:
    parser = Parser(
        prog="miras",
        description="Train and run sequence models that learn while they read.",
        epilog="`miras COMMAND --help` tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"miras {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    train.add_parser(commands)
    evaluate.add_parser(commands, _load)

    presets = commands.add_parser("presets", help="list the named models and their parts")
    presets.add_argument("--markdown", action="store_true", help="with updates, in Markdown")
    presets.set_defaults(run=_presets)

    refused = commands.add_parser(
        "legality",
        help="list the combinations of parts that are refused",
        description="Combinations of parts that have no meaning, why, and what to take instead.",
    )
    refused.add_argument("--markdown", action="store_true", help="in Markdown")
    refused.set_defaults(run=_legality)

    describe = commands.add_parser(
        "describe",
        help="tell what a model is made of and what it costs",
        description="A model's equations, composed of those of its four parts, its size and cost.",
    )
    describe.add_argument("--latex", action="store_true", help="its equations alone, in LaTeX")
    add_words(describe, "a preset and fields of the model, as in width=256")
    describe.set_defaults(run=_describe)

    generate.add_parser(commands, _load)
    stream.add_parser(commands, _load)
    match.add_parser(commands)
    ablate.add_parser(commands, train.run_config)
    staleness.add_parser(commands, staleness.Sources(new=train.run_config, load=_load))
    inspect.add_parser(commands, _load)
    for command in commands.choices.values():
        command.add_argument(
            "--plugin",
            action="append",
            metavar="FILE.py|MODULE",
            help="code of your own that registers members; a run remembers it",
        )
        command.add_argument(
            "--trust-plugins",
            action="store_true",
            help="run the code that a run's folder keeps, also where you have not trained it",
        )
    return parser, commands


def _show(*tables: "Table") -> None:
    from rich.console import Console

    for table in tables:
        Console().print(table)


def _load(folder: str) -> "Run":
    from miras.train import load_run

    run = load_run(folder)
    for step, reason in run.damaged.items():
        fail(f"warning: checkpoint {step} is damaged ({reason}); using step {run.step}.", 0)
    return run


def _presets(args: argparse.Namespace) -> int:
    from miras.analysis.describe import presets_markdown, presets_table

    if args.markdown:
        print(presets_markdown())
    else:
        _show(presets_table())
    return 0


def _legality(args: argparse.Namespace) -> int:
    from miras.analysis import refusals

    if args.markdown:
        print(refusals.markdown())
    else:
        _show(*refusals.tables())
    return 0


def _describe(args: argparse.Namespace) -> int:
    from miras.presets import find

    name, assignments = split(args.words)
    entry = find(name or DEFAULT)
    config = override(entry.build(), *(word.removeprefix("model.") for word in assignments))
    if args.latex:
        from miras.analysis.equation import equations

        print(equations(config, latex=True))
        return 0
    from miras.analysis.describe import description

    told = description(entry, config)
    try:
        told.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        from miras.analysis.equation.text import ascii_of

        told = ascii_of(told)
    print(told)
    return 0
