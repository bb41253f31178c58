"""The command `miras train`: words to a run's config, and how the run ended to an exit code.

What needs jax or reads text is imported when the command runs, as in `cli`.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any

from miras.cli.words import DEFAULT, add_words, split
from miras.config import override, require
from miras.errors import fail

if TYPE_CHECKING:
    from miras.train import RunConfig


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "train",
        help="train a language model, or go on where a run stopped",
        description="Train a language model, or go on where the run in the folder stopped.",
        epilog="Examples: `miras train`, `miras train titans_lmm steps=500 width=256`, "
        "`miras train yaad bias=l2 --data my_texts --out runs/mine`, `miras train --out runs/mine` "
        "to go on, `miras train --from runs/mine --data other_texts` to fine-tune.",
    )
    add_words(parser, f"a preset (default: {DEFAULT}) and fields of the run, as in bias.delta=0.5")
    parser.add_argument(
        "--data", metavar="PATH|tfds:NAME", help="text to learn (default: the standard library)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (default: runs/PRESET-HASH of the config)"
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="RUN[@STEP]",
        help="start a new run with another run's parameters, and its config if no preset is given",
    )
    parser.add_argument(
        "--partial", action="store_true", help="with --from: take the parameters that fit"
    )
    parser.add_argument(
        "--logger",
        metavar="NAME,...",
        help="where measurements go: jsonl, tensorboard, wandb, trackio, FILE.py:CLASS",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on where the folder's run stopped; always done"
    )
    parser.set_defaults(run=_run)


def run_config(
    name: str, assignments: list[str], source: str | None, kept: pathlib.Path | None = None
) -> "RunConfig":
    """The config of a run from a preset, assignments and a data source.

    The vocabulary is that of the data's tokenizer, unless it is assigned: of the copy that the
    run's folder `kept` has, where it goes on.

    Raises:
        ConfigError: for what cannot be assigned, or a tokenizer that cannot be read.
    """
    from miras.data import vocabulary
    from miras.presets import preset
    from miras.train import RunConfig
    from miras.train.runs import provenance

    config = override(RunConfig(model=preset(name)), *assignments)
    if source is not None:
        config = override(config, f"data.source={source}")
    if not any(word.partition("=")[0].strip() in ("vocab", "model.vocab") for word in assignments):
        data = config.data if kept is None else provenance.own(kept, config).data
        config = override(config, f"model.vocab={vocabulary(data)}")
    return config


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from miras.train import NonFiniteError, train

    config, out = _plan(args)
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


def _plan(args: argparse.Namespace) -> "tuple[RunConfig, str]":
    """The run's config and its folder."""
    from miras.train.loggers.base import load_own
    from miras.train.runs.run_folder import RunFolder, default_folder

    require(args.source is not None or not args.partial, "--partial belongs to --from RUN.")
    name, assignments = split(args.words)
    if args.logger is not None:
        names = load_own([part.strip() for part in args.logger.split(",")])
        assignments.append(f"train.logger={json.dumps(names)}")
    saved, own = None, None if args.out is None else RunFolder(args.out)
    if own is not None and own.holds_run():
        saved = own.read_config()
    if args.source is not None:
        name, config = _from_run(args, name, assignments, saved)
    elif name is None and saved is not None:
        config = _changed(saved, assignments, args.data)
    else:
        name = name or DEFAULT
        kept = own.path if own is not None and saved is not None else None
        config = run_config(name, assignments, args.data, kept)
    return config, args.out or default_folder(str(name), config)


def _from_run(
    args: argparse.Namespace, name: str | None, assignments: list[str], saved: "RunConfig | None"
) -> "tuple[str, RunConfig]":
    """The name and config of a run that starts with the parameters of another one."""
    from miras.train.checkpoints.checkpointer import saved_steps
    from miras.train.config import Parent
    from miras.train.runs.initial_parameters import split_source
    from miras.train.runs.run_folder import RunFolder

    run, step = split_source(args.source)
    if step is None and saved is not None and saved.parent and saved.parent.run == run:
        step = saved.parent.step  # what it started from, though RUN may have gone on since
    folder = RunFolder(run)
    if name is None:
        base = dataclasses.replace(folder.read_own_config(), parent=None)
        name, config = folder.path.name, _changed(base, assignments, args.data)
    else:
        config = run_config(name, assignments, args.data)
    if step is None:
        steps = saved_steps(folder.checkpoints) if folder.holds_run() else []
        require(bool(steps), f"--from {args.source} has no checkpoint: give a run's folder.")
        step = steps[-1]
    return name, dataclasses.replace(config, parent=Parent(run, step, args.partial))


def _changed(config: "RunConfig", assignments: list[str], source: str | None) -> "RunConfig":
    """A run's config with other values."""
    data = [] if source is None else [f"data.source={source}"]
    return override(config, *assignments, *data)
