"""The option --lm-eval of `miras eval`: a run on the tasks of EleutherAI's lm-eval."""

import argparse
import os

from miras.cli.eval_output import Bar, write_results
from miras.cli.output import print_line
from miras.cli.runs import load_run
from miras.errors import ConfigError
from miras.runtime import signals
from miras.runtime.paths import local_path

_OTHERS = ("task", "lengths", "depths", "examples", "seed", "batches")  # options of other forms


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --lm-eval and the options that apply to it alone."""
    parser.add_argument(
        "--lm-eval",
        metavar="NAME,NAME,...",
        help="tasks of lm-eval: hellaswag,piqa,arc_easy, ... (needs miras-jax[eval])",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="most items per task of lm-eval")
    parser.add_argument(
        "--include-path",
        metavar="DIR",
        help="folder of task files (YAML) for lm-eval, which replace its own of the same names",
    )


def check_absent(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for an option that needs --lm-eval."""
    for name in ("limit", "include_path"):
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} applies to tasks of lm-eval only: give --lm-eval as well.")


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate the run, print a table and write `lm_eval.json`."""
    given = [f"--{name}" for name in _OTHERS if getattr(args, name) is not None]
    for argument in [*given, *map(repr, args.overrides)]:
        raise ConfigError(f"{argument} does not apply to --lm-eval: leave it out.")

    from rich.console import Console

    from miras.analysis.eval.harness import check_installed, evaluate_harness
    from miras.runtime.files import check_target

    check_installed()
    run = load_run(args.folder)
    folder = local_path(os.path.join(args.folder, "eval") if args.out is None else args.out)
    path = folder / "lm_eval.json"
    check_target(path)
    names = dict.fromkeys(name.strip() for name in args.lm_eval.split(",") if name.strip())
    console = Console()
    with signals.handled(), Bar(console, None, "requests") as bar:
        results = evaluate_harness(
            run,
            list(names),
            limit=args.limit,
            include=args.include_path,
            data=args.data,
            name=args.folder,
            progress=bar.advance,
        )
    console.print(results.table())
    write_results(path, results.to_json())
    print_line(console, f"written: {path}")
    return 0
