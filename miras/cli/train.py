"""The command `miras train`: trains a new run, or resumes one."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from miras.cli.options import (
    DEFAULT_PRESET,
    RUN_FIELDS,
    TRAINING_TEXT,
    add_data,
    add_preset_and_overrides,
    add_rates,
    add_recipe,
    split_preset,
)
from miras.cli.output import print_line
from miras.cli.runs import run_config, with_mesh, with_settled_rates, with_settled_task, with_source
from miras.config import override, require
from miras.errors import fail
from miras.runtime import processes
from miras.runtime.cluster import TIME_LIMIT, connect, failures_end_the_process

if TYPE_CHECKING:
    from miras.train import RunConfig


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "train",
        help="train a language model, or resume a run",
        description="Train a language model, or resume the run in a folder.",
        epilog="Examples: `miras train`, `miras train titans_lmm steps=500 width=256`, "
        "`miras train yaad bias=l2 --data my_texts --out runs/mine`, `miras train --out runs/mine` "
        "to resume, `miras train --from runs/mine --data other_texts` to fine-tune.",
    )
    add_preset_and_overrides(parser, RUN_FIELDS)
    add_recipe(parser)
    add_data(parser, TRAINING_TEXT)
    add_rates(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (default: runs/PRESET-HASH of the config)"
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="RUN[@STEP]",
        help="start a new run from another run's parameters, and from its config if no preset is "
        "given",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="with --from: load only the parameters whose names and shapes match",
    )
    parser.add_argument(
        "--logger",
        metavar="NAME,...",
        help="where to log measurements: jsonl, tensorboard, wandb, trackio, FILE.py:CLASS",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what the run would be, and take one step of one group of its layers, in full "
        "width, on random tokens; read no data and write nothing",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the run in the folder; this is the default, the option changes nothing",
    )
    _add_processes(parser)
    parser.set_defaults(run=_run)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    """Add the options that connect the processes of a run on several hosts."""
    group = parser.add_argument_group(
        "several processes",
        "Run the same command in every process. TPU pods, SLURM and Open MPI need no options.",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where process 0 lets the others connect"
    )
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process", type=int, metavar="I", help="number of this process, from 0")
    group.add_argument(
        "--time-limit",
        type=float,
        default=TIME_LIMIT,
        metavar="SECONDS",
        help=f"how long to wait for the other processes (default: {TIME_LIMIT:g})",
    )


def _run(args: argparse.Namespace) -> int:
    if args.dry_run:
        return _dry_run(args)
    with failures_end_the_process():
        connect(args.coordinator, args.processes, args.process, args.time_limit)
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    from rich.console import Console

    from miras.analysis.utilization import utilization
    from miras.train import NonFiniteError, train

    config, out = _config_and_folder(args)
    console = Console(quiet=not processes.first())
    try:
        result = train(config, out, console=console, utilization=utilization(config))
    except NonFiniteError as error:
        return fail(error, 1)
    print_line(console, f"{result.held_out.summary}; run folder: {result.folder}")
    return 0


def _dry_run(args: argparse.Namespace) -> int:
    from miras.analysis.dry_run import dry_run
    from miras.parallel.slices import parse_slice

    on = None if args.on is None else parse_slice(args.on)
    for line in dry_run(planned_config(args, with_data=True), on):
        print(line, flush=True)
    return 0


def planned_config(args: argparse.Namespace, *, with_data: bool) -> "RunConfig":
    """The config of a new run, whose text and folder need not be here.

    Args:
        args: of `miras train`.
        with_data: whether the tokenizer is here; otherwise its vocabulary is not read.

    Raises:
        ConfigError: it is not valid, or is that of another run (`--from` without a preset).
    """
    name, overrides = split_preset(args.overrides)
    require(
        args.source is None or name is not None,
        "--from RUN takes the config of another run, which is not read here: give a preset or "
        "leave out --from.",
    )
    return run_config(
        name or DEFAULT_PRESET,
        overrides,
        args.data,
        rates=args.rates,
        recipe=args.recipe,
        on=args.on,
        with_data=with_data,
    )


def _config_and_folder(args: argparse.Namespace) -> "tuple[RunConfig, str]":
    """The run's config and its folder."""
    from miras.train.loggers.registry import load_files
    from miras.train.runs.run_folder import RunFolder, default_folder

    require(args.source is not None or not args.partial, "--partial needs --from RUN.")
    require(
        args.source is None or args.recipe is None or any("=" not in w for w in args.overrides),
        "--from RUN without a preset takes the config of RUN: give a preset with --recipe.",
    )
    name, overrides = split_preset(args.overrides)
    if args.logger is not None:
        names = load_files([part.strip() for part in args.logger.split(",")])
        overrides.append(f"train.logger={json.dumps(names)}")
    saved, own = None, None if args.out is None else RunFolder(args.out)
    if own is not None and own.holds_run():
        saved = own.read_config()
    if args.source is not None:
        name, config = _config_from_run(args, name, overrides, saved)
    elif name is None and args.recipe is None and saved is not None:
        config = with_source(override(saved, *overrides), args.data)
        config = config if args.on is None else with_mesh(config, args.on, overrides)
    else:
        name = name or DEFAULT_PRESET
        resumed = own.path if own is not None and saved is not None else None
        config = run_config(
            name,
            overrides,
            args.data,
            resumed,
            rates=args.rates,
            saved=saved,
            recipe=args.recipe,
            on=args.on,
        )
    return config, args.out or default_folder(str(name), config)


def _config_from_run(
    args: argparse.Namespace, name: str | None, overrides: list[str], saved: "RunConfig | None"
) -> "tuple[str, RunConfig]":
    """The name and config of a run that starts from another run's parameters."""
    from miras.train.checkpoints.checkpointer import saved_steps
    from miras.train.config import Parent
    from miras.train.runs.initial_parameters import parse_source
    from miras.train.runs.run_folder import RunFolder

    run, step = parse_source(args.source)
    if step is None and saved is not None and saved.parent and saved.parent.run == run:
        step = saved.parent.step  # of the first start, even if RUN has been trained further since
    folder = RunFolder(run)
    if name is None:
        base = dataclasses.replace(folder.read_relocated_config(), parent=None)
        config = with_settled_task(with_source(override(base, *overrides), args.data))
        name = folder.path.name
        config = with_settled_rates(config, base, overrides, args.rates, saved=saved)
        config = config if args.on is None else with_mesh(config, args.on, overrides)
    else:
        config = run_config(
            name,
            overrides,
            args.data,
            rates=args.rates,
            saved=saved,
            recipe=args.recipe,
            on=args.on,
        )
    if step is None:
        steps = saved_steps(folder.checkpoints) if folder.holds_run() else []
        require(bool(steps), f"--from {args.source} has no checkpoint: give a run's folder.")
        step = steps[-1]
    return name, dataclasses.replace(config, parent=Parent(run, step, args.partial))
