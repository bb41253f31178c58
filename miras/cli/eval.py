"""The command `miras eval`: a run's bits per byte, or its answers to a task.

What needs jax's models or reads text is imported when the command runs, as in `cli`.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miras.config import override, require, to_dict
from miras.config.choices import shown
from miras.errors import ConfigError
from miras.runtime import signals
from miras.runtime.files import expanded

if TYPE_CHECKING:
    from rich.console import Console

    from miras.analysis.eval.results import Results
    from miras.tasks import Task
    from miras.train import Run

_LENGTHS, _DEPTHS, _EXAMPLES = "1k,4k", "0,0.25,0.5,0.75,1", 20
_OF_TASKS = ("lengths", "depths", "examples", "seed", "out")


def add_parser(commands: Any, load: "Callable[[str], Run]") -> None:
    """Add the command to a parser's `add_subparsers()`.

    Args:
        commands: as argparse makes them.
        load: reads a run from its folder.
    """
    parser = commands.add_parser(
        "eval",
        help="measure a run on held-out text, or on a task by length and depth",
        description="Bits per byte and perplexity of a run on held-out text; or, with --task, how "
        "many of its answers are right at each length and depth: a table, a heat map and JSON.",
        epilog="Examples: `miras eval runs/yaad`, `miras eval runs/yaad --task niah form=uuid "
        "--lengths 1k,4k,16k --examples 50`.",
    )
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="a field of the task, as in form=uuid"
    )
    parser.add_argument(
        "--data",
        metavar="PATH|tfds:NAME",
        help="text to measure on, or a task's background (default: the run's own)",
    )
    parser.add_argument(
        "--batches", type=int, metavar="N", help="batches to read (default: all held-out text)"
    )
    parser.add_argument("--task", metavar="NAME", help="mqar, niah, babilong, selective_copy, ...")
    parser.add_argument(
        "--lengths", metavar="N,N,...", help=f"tokens of a row; 1k is 1024 (default: {_LENGTHS})"
    )
    parser.add_argument(
        "--depths",
        metavar="D,D,...",
        help="where in a row that which is asked for stands, from 0, its start, to 1 (default: "
        f"{_DEPTHS})",
    )
    parser.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help=f"rows of each length and depth (default: {_EXAMPLES})",
    )
    parser.add_argument("--seed", type=int, help="another seed, other rows (default: 0)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for TASK.json and TASK.png (default: RUN/eval)"
    )
    parser.set_defaults(run=lambda args: _run(args, load))


def _run(args: argparse.Namespace, load: "Callable[[str], Run]") -> int:
    if args.task is None:
        given = [f"--{name}" for name in _OF_TASKS if getattr(args, name) is not None]
        for word in [*given, *map(repr, args.words)]:
            raise ConfigError(f"{word} is of use to a task only: give --task as well.")
        return _held_out(args, load(args.folder))
    require(args.batches is None, "--batches is of no use to a task: give --examples.")
    lengths = [length_of(word) for word in (args.lengths or _LENGTHS).split(",")]
    depths = [_depth_of(word) for word in (args.depths or _DEPTHS).split(",")]
    examples = _EXAMPLES if args.examples is None else args.examples

    from rich.console import Console

    from miras.analysis.eval import report
    from miras.analysis.eval.evaluate import evaluate_task
    from miras.runtime.files import check_target

    run = load(args.folder)
    task = _task(args.task, args.words, run)
    if args.data is not None and task.vocabulary() is not None:
        raise ConfigError(f"--data is of no use to task {args.task!r}, which has no text in it.")
    folder = pathlib.Path(args.folder, "eval") if args.out is None else pathlib.Path(args.out)
    path = expanded(folder) / f"{to_dict(task)['kind']}.json"
    check_target(path)
    console = Console()
    total = len(set(depths)) * examples * sum(set(lengths))
    with signals.handled(), _Bar(console, total) as bar:
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
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    say(report.heading(results))
    console.print(report.table(results))
    say(report.caption(results))
    written = _write(results, path)
    say(f"written: {written}")
    return 0


def length_of(word: str) -> int:
    """Tokens from a number, where k stands for 1024.

    Raises:
        ConfigError: for what is no such number of at least 1.
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


def _depth_of(word: str) -> float:
    from miras.data.task import check_depth

    try:
        depth = float(word)
    except ValueError as error:
        raise ConfigError(f"--depths {word!r} is not a number in [0, 1], such as 0.5.") from error
    check_depth(depth, "--depths")
    return depth


def _task(name: str, words: list[str], run: "Run") -> "Task":
    """The task as the run was trained on it, if it was, with the fields that are given."""
    from miras.tasks import Task

    task, own = Task.registry.build(name), run.config.data.task
    if own is not None and to_dict(own)["kind"] == to_dict(task)["kind"]:
        task = own
    return override(task, *(word.removeprefix("task.") for word in words))


def _write(results: "Results", path: pathlib.Path) -> str:
    from miras.analysis.eval.plot import heat_map
    from miras.errors import fail
    from miras.runtime.figures import write_picture
    from miras.runtime.files import write_whole
    from miras.train.runs.run_folder import cannot_write

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, results.to_json())
    except OSError as error:
        raise ConfigError(cannot_write(path.parent, error)) from error
    warn = lambda reason: fail(reason, 0)  # noqa: E731
    drawn = write_picture(path.with_suffix(".png"), lambda: heat_map(results), warn)
    return f"{path} and {path.stem}.png" if drawn else str(path)


def _held_out(args: argparse.Namespace, run: "Run") -> int:
    from rich.console import Console
    from rich.table import Table

    from miras.train import HeldOut, evaluate_run

    with signals.handled():
        found = evaluate_run(run, args.data, args.batches)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("step", str(run.step))
    if isinstance(found, HeldOut):
        table.add_row("held-out tokens", f"{found.tokens:,}")
        table.add_row("bits per byte", f"{found.bits_per_byte:.4f}")
        table.add_row("perplexity per token", f"{found.perplexity:.4f}")
    else:
        table.add_row("held-out rows", f"{found.rows:,}")
        table.add_row("exact match", f"{found.exact_match:.4f}")
        table.add_row("token accuracy", f"{found.accuracy:.4f}")
    Console().print(table)
    return 0


class _Bar:
    """A bar of the tokens read, on a terminal; silent elsewhere."""

    def __init__(self, console: "Console", total: int):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("reading"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %  eta"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("reading", total=total)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def advance(self, tokens: int) -> None:
        """So many more were read."""
        self._progress.advance(self._task, tokens)
