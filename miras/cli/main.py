"""The entry point of the command line: parse the arguments, run one command, return an exit code.

Each command is a module of this package with a function `add_parser(commands)`. Commands import
what needs jax or reads data when they run, so that `--help` loads no library.
"""

import sys
from collections.abc import Sequence

from miras import __version__
from miras.cli import (
    ablate,
    compare,
    describe,
    export_weights,
    generate,
    import_weights,
    inspect,
    launch,
    legality,
    list_runs,
    match,
    models,
    plan,
    prepare,
    presets,
    profile,
    recipes,
    staleness,
    stream,
    strength,
    train,
)
from miras.cli import eval as evaluate
from miras.cli.arguments import Parser, parse
from miras.cli.options import add_plugins
from miras.config import plugins
from miras.config.trust import trusting
from miras.errors import ConfigError, fail
from miras.runtime import compilation_cache
from miras.runtime.notices import notices
from miras.runtime.signals import Interrupted
from miras.runtime.terminal import tolerant_output

COMMANDS = (
    train,
    launch,
    prepare,
    evaluate,
    presets,
    recipes,
    models,
    legality,
    describe,
    generate,
    stream,
    import_weights,
    export_weights,
    match,
    plan,
    ablate,
    strength,
    staleness,
    inspect,
    profile,
    list_runs,
    compare,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; `sys.argv[1:]` if not given.

    Returns:
        The exit code: 0; 1 after NaN or infinity in a run, or an error of the operating system; 2
        after an error that the user can correct; 130 after SIGINT; 143 after SIGTERM.
    """
    if argv is None:  # a process of its own, whose environment is that of no other code
        compilation_cache.enable()
    with tolerant_output():
        return _run(sys.argv[1:] if argv is None else argv)


def build_parser() -> Parser:
    """The parser of `miras`, with every command in `parser.commands`. It has no side effects."""
    parser = Parser(
        prog="miras",
        description="Train and run sequence models whose memory learns at test time.",
        epilog="`miras COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"miras {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add_parser(commands)
    parser.commands = dict(commands.choices)
    for command in parser.commands.values():
        add_plugins(command)
    return parser


def _run(argv: Sequence[str]) -> int:
    try:
        parser = build_parser()
        args = parse(parser, argv)
        if getattr(args, "out", None) == "":
            parser.error("--out is empty, but must name a folder")
        for source in args.plugin or ():
            plugins.load(source)
        with notices(), trusting(args.trust_plugins):
            return args.run(args)
    except ConfigError as error:
        return fail(error, 2)
    except (OSError, MemoryError, OverflowError, RecursionError) as error:
        message = str(error) or type(error).__name__
        return fail(f"{message}: check the paths and sizes that the command was given.", 1)
    except KeyboardInterrupt:
        return fail("interrupted; the same command resumes a run from its last checkpoint.", 130)
    except Interrupted as end:
        return fail(end, end.number + 128)
    except SystemExit as end:  # raised by argparse after `--help` and `--version`
        return end.code if isinstance(end.code, int) else 0
