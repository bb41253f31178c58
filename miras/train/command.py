"""The command `miras train`: words to a run's config, and how the run ended to an exit code.

What needs jax or reads text is imported when the command runs, as in `cli`.
"""

import argparse
from typing import TYPE_CHECKING, Any

from miras.config import override
from miras.errors import fail
from miras.words import DEFAULT, add_words, split

if TYPE_CHECKING:
    from miras.train import RunConfig


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "train",
        help="train a language model, or go on where a run stopped",
        description="Train a language model, or go on where the run in the folder stopped.",
        epilog="Examples: `miras train`, `miras train titans_lmm steps=500 width=256`, "
        "`miras train yaad bias=l2 --data my_texts --out runs/mine`.",
    )
    add_words(parser, f"a preset (default: {DEFAULT}) and fields of the run, as in bias.delta=0.5")
    parser.add_argument(
        "--data", metavar="PATH|tfds:NAME", help="text to learn (default: the standard library)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/PRESET)")
    parser.add_argument(
        "--resume", action="store_true", help="go on where the folder's run stopped; always done"
    )
    parser.set_defaults(run=_run)


def run_config(name: str, assignments: list[str], source: str | None) -> "RunConfig":
    """The config of a run from a preset, assignments and a data source.

    The vocabulary is that of the data's tokenizer, unless it is assigned.

    Raises:
        ConfigError: for what cannot be assigned, or a tokenizer that cannot be read.
    """
    from miras.data import vocabulary
    from miras.presets import preset
    from miras.train import RunConfig

    config = override(RunConfig(model=preset(name)), *assignments)
    if source is not None:
        config = override(config, f"data.source={source}")
    if not any(word.partition("=")[0].strip() in ("vocab", "model.vocab") for word in assignments):
        config = override(config, f"model.vocab={vocabulary(config.data)}")
    return config


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from miras.train import NonFiniteError, train
    from miras.train.run_folder import RunFolder

    named, assignments = split(args.words)
    name = named or DEFAULT
    out = f"runs/{name}" if args.out is None else args.out
    RunFolder(out).load_plugins()  # those of a run that goes on
    config = run_config(name, assignments, args.data)
    console = Console()
    try:
        result = train(config, out, console=console)
    except NonFiniteError as error:
        return fail(error, 1)
    console.print(
        f"{result.held_out.summary}; the run lies in {result.folder}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0
