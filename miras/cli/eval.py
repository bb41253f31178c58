"""The command `miras eval`: measures a run on held-out text, or on a task."""

import argparse
import os
import pathlib
from typing import TYPE_CHECKING, Any

from miras.cli import harness, perplexity
from miras.cli.eval_output import Bar, write_results
from miras.cli.options import add_data, add_overrides, add_run_folder, add_seed
from miras.cli.output import print_line
from miras.cli.runs import load_run
from miras.config import override, require, to_dict
from miras.config.choices import shown
from miras.errors import ConfigError
from miras.runtime import signals
from miras.runtime.paths import local_path

if TYPE_CHECKING:
    from miras.analysis.eval.results import TaskResults
    from miras.tasks import Task
    from miras.train import Run

_LENGTHS, _DEPTHS, _EXAMPLES = "1k,4k", "0,0.25,0.5,0.75,1", 20
_TASK_OPTIONS = ("lengths", "depths", "examples", "seed", "out")


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "eval",
        help="measure a run on held-out text, or on a task by length and depth",
        description="Measure a run's bits per byte and perplexity on held-out text. With --task, "
        "measure the share of right answers at each length and depth instead, and write a table, a "
        "heat map and a JSON file. With --lm-eval, evaluate it on tasks of EleutherAI's lm-eval.",
        epilog="Examples: `miras eval runs/yaad`, `miras eval runs/yaad --task niah form=uuid "
        "--lengths 1k,4k,16k --examples 50`, `miras eval runs/yaad --lm-eval hellaswag,piqa`.",
    )
    add_run_folder(parser)
    add_overrides(parser, "a field of the task, as in form=uuid")
    add_data(
        parser,
        "held-out text, or a task's background text (default: the run's data); with --lm-eval, the "
        "folder that task files read",
    )
    parser.add_argument(
        "--batches",
        type=int,
        metavar="N",
        help="number of batches of held-out text (default: all)",
    )
    _add_task_options(parser)
    harness.add_options(parser)
    parser.set_defaults(run=_run)


def _add_task_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", metavar="NAME", help="mqar, niah, babilong, ..., or perplexity")
    parser.add_argument(
        "--lengths", metavar="N,N,...", help=f"tokens per row; 1k is 1024 (default: {_LENGTHS})"
    )
    parser.add_argument(
        "--depths",
        metavar="D,D,...",
        help="position of the fact that is asked for, from 0 (start of the row) to 1 (default: "
        f"{_DEPTHS})",
    )
    parser.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help=f"rows per length and depth (default: {_EXAMPLES})",
    )
    add_seed(parser, "seed of the rows (default: 0)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the JSON file and the plot (default: RUN/eval)"
    )


def _run(args: argparse.Namespace) -> int:
    if args.lm_eval is not None:
        return harness.evaluate(args)
    harness.check_absent(args)
    if args.task == perplexity.NAME:
        return perplexity.evaluate(args)
    if args.task is not None:
        return _evaluate_task(args)
    given = [f"--{name}" for name in _TASK_OPTIONS if getattr(args, name) is not None]
    for argument in [*given, *map(repr, args.overrides)]:
        raise ConfigError(f"{argument} applies to a task only: give --task as well.")
    return _evaluate_held_out(args)


def _evaluate_task(args: argparse.Namespace) -> int:
    require(args.batches is None, "--batches does not apply to a task: give --examples.")
    lengths = [parse_length(word) for word in (args.lengths or _LENGTHS).split(",")]
    depths = [_parse_depth(word) for word in (args.depths or _DEPTHS).split(",")]
    examples = _EXAMPLES if args.examples is None else args.examples

    from rich.console import Console

    from miras.analysis.eval import report
    from miras.analysis.eval.evaluate import evaluate_task
    from miras.runtime.files import check_target

    run = load_run(args.folder)
    task = _task(args.task, args.overrides, run)
    if args.data is not None and task.vocabulary() is not None:
        raise ConfigError(
            f"--data does not apply to task {args.task!r}, which has no text: leave it out."
        )
    folder = local_path(os.path.join(args.folder, "eval") if args.out is None else args.out)
    path = folder / f"{to_dict(task)['kind']}.json"
    check_target(path)
    console = Console()
    total = len(set(depths)) * examples * sum(set(lengths))
    with signals.handled(), Bar(console, total) as bar:
        results = evaluate_task(
            run,
            task,
            lengths,
            depths,
            examples,
            args.seed or 0,
            name=args.folder,
            source=args.data,
            progress=bar.advance,
        )
    print_line(console, report.heading(results))
    console.print(report.table(results))
    print_line(console, report.caption(results))
    print_line(console, f"written: {_write(results, path)}")
    return 0


def parse_length(word: str) -> int:
    """A number of tokens; the suffix k multiplies by 1024.

    Raises:
        ConfigError: for anything but such a number of at least 1.
    """
    text = word.strip().lower()
    number = text.removesuffix("k")
    digits = number.isascii() and number.isdigit() and len(number) < 20
    tokens = int(number) * (1024 if text.endswith("k") else 1) if digits else 0
    if not 1 <= tokens < 2**31:
        raise ConfigError(
            f"--lengths {shown(word)} is not a whole number of tokens of at least 1 and less than "
            "2**31, such as 4096 or 4k."
        )
    return tokens


def _parse_depth(word: str) -> float:
    from miras.data.task import check_depth

    try:
        depth = float(word)
    except ValueError as error:
        raise ConfigError(f"--depths {word!r} is not a number in [0, 1], such as 0.5.") from error
    check_depth(depth, "--depths")
    return depth


def _task(name: str, overrides: list[str], run: "Run") -> "Task":
    """The task with overrides; its other fields are the run's if it was trained on that task."""
    from miras.data.task import with_examples
    from miras.tasks import Task

    task, own = Task.registry.build(name), run.config.data.task
    if own is not None and to_dict(own)["kind"] == to_dict(task)["kind"]:
        task = own
    return override(with_examples(task), *(word.removeprefix("task.") for word in overrides))


def _write(results: "TaskResults", path: pathlib.Path) -> str:
    from miras.analysis.eval.plot import heat_map
    from miras.errors import fail
    from miras.runtime.figures import write_figure

    write_results(path, results.to_json())
    warn = lambda reason: fail(reason, 0)  # noqa: E731
    drawn = write_figure(path.with_suffix(".png"), lambda: heat_map(results), warn)
    return f"{path} and {path.stem}.png" if drawn else str(path)


def _evaluate_held_out(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from miras.train import evaluate_run
    from miras.train.evaluate import evaluated_data

    run = load_run(args.folder)
    with signals.handled():
        found = evaluate_run(run, args.data, args.batches)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("step", str(run.step))
    for row in found.table:
        table.add_row(*row)
    data = evaluated_data(run, args.data)
    task = data.task if args.batches is None else None  # baselines are on all rows
    for reference in task.references(data) if task else ():
        errors = ", ".join(f"{name.upper()} {x:.4f}" for name, x in reference.scores.items())
        table.add_row(reference.name, errors)
    Console().print(table)
    return 0
