"""The command `miras ablate`: trains a grid of configs under several seeds and compares them."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from miras.cli.comparisons import add_comparisons, print_preview
from miras.cli.options import TRAINING_TEXT, add_data, add_overrides, add_rates
from miras.cli.output import print_line
from miras.cli.ray_options import add_ray, check_without_mesh, ray_options
from miras.cli.runs import run_config
from miras.config import require, sweep
from miras.config.sweep import Sweep
from miras.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from miras.analysis.ablate.grid import AblationGrid
    from miras.analysis.ablate.outcome import Outcome

SEEDS = 3
_OPEN, _CLOSE = "[{(", "]})"


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "ablate",
        help="train a grid of models under several seeds, and compare them",
        description="Train every combination of the values given, each under several seeds, and "
        "print means, confidence intervals and the main effect of each choice. Invalid "
        "combinations are skipped, with the reason. The same command resumes a grid that stopped.",
        epilog="Examples: `miras ablate yaad bias=l2,lp,huber optim=gd,momentum steps=200`, "
        "`miras ablate titans_lmm chunk=8,16,32 width=64 --seeds 5 --out runs/chunks`.",
    )
    parser.add_argument("preset", metavar="PRESET", help="the model that the grid varies")
    add_overrides(
        parser,
        "a field of the run's config; several values, separated by commas, make an axis of the "
        "grid; commas inside brackets or quotes do not separate; `optim` is short for `algorithm`; "
        "`strength=0.02,0.05` varies how strongly the memory is written",
        metavar="KEY=VALUE[,VALUE...]",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=SEEDS,
        metavar="N",
        help=f"seeds of each combination (default: {SEEDS})",
    )
    add_data(parser, TRAINING_TEXT)
    add_rates(parser)
    add_comparisons(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the grid, or gs://... or s3://... (default: runs/ablate-PRESET)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes to run at once (default: half the CPU cores; 2 on 2 cores)",
    )
    add_ray(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    points = parse_points(args.overrides)
    require(args.seeds >= 1, f"--seeds {args.seeds} must be at least 1.")
    require(args.jobs is None or args.jobs >= 1, f"--jobs {args.jobs} must be at least 1.")
    ray = ray_options(args)

    from rich.console import Console

    from miras.analysis.ablate import grid_plugins, report
    from miras.analysis.ablate.ablation import ablate
    from miras.analysis.ablate.folder import GridFolder
    from miras.presets import preset

    out = f"runs/ablate-{args.preset}" if args.out is None else args.out
    grid_plugins.restore(GridFolder(out).plugins)  # of a grid to resume
    preset(args.preset)
    console = Console()
    grid = _grid(args, points, console)
    GridFolder(out).check(grid)
    for line in report.illegal_lines(grid):
        print_line(console, line)
    if args.dry_run:
        print_preview(grid, console)
        return 0
    results = ablate(grid, out, jobs=args.jobs, ray=ray, console=console)
    print_line(
        console, f"written: {out}/table.md, table.csv, effects.csv, results.jsonl and figures"
    )
    return _exit_code(list(results.all_runs.outcomes.values()), out)


def _grid(args: argparse.Namespace, points: Sweep, console: "Console") -> "AblationGrid":
    from miras.analysis.ablate.make_grid import make_grid
    from miras.analysis.ablate.rates import parse_rates
    from miras.analysis.ablate.trainable import TrainableCheck

    swept = parse_rates(args.sweep)

    check = TrainableCheck(with_data=not args.dry_run)
    with console.status("building the configs"):
        return make_grid(
            points,
            lambda *overrides: run_config(
                args.preset, list(overrides), args.data, rates=args.rates
            ),
            seeds=args.seeds,
            title=args.preset,
            check=check_without_mesh(check) if args.ray else check,
            budget=args.budget,
            swept=swept,
        )


def _exit_code(outcomes: "list[Outcome]", out: str) -> int:
    """0 if every run finished; otherwise 1, and a warning on the standard error."""
    unfinished = [outcome for outcome in outcomes if outcome.status != "done"]
    if not unfinished:
        return 0
    failed = any(outcome.status == "failed" for outcome in unfinished)
    retry = "; run the same command again to retry the failed ones" if failed else ""
    print(
        f"miras: {len(unfinished)} of {len(outcomes)} runs did not finish, see {out}/table.md"
        f"{retry}.",
        file=sys.stderr,
    )
    return 1


def parse_points(arguments: list[str]) -> Sweep:
    """The points of a grid: the product over all arguments KEY=VALUE[,VALUE...].

    Raises:
        ConfigError: for an argument without "=", a key given twice, or a value that is empty or
            given twice.
    """
    axes: dict[str, Sweep] = {}
    for argument in arguments:
        path, equals, text = argument.partition("=")
        path = ".".join(
            "algorithm" if name == "optim" else name for name in path.strip().split(".")
        )
        if not equals or not path:
            raise ConfigError(f"{argument!r} is not of the form key=value, e.g. bias=l2,huber.")
        require(path not in axes, f"{path!r} is given twice: give all its values in one argument.")
        axes[path] = sweep.axis(path, split_values(text))
    return sweep.product(*axes.values())


def split_values(text: str) -> list[str]:
    """Split a text at commas outside brackets, braces and double quotes.

    A value in double quotes is parsed as a JSON string.

    Raises:
        ConfigError: for a bracket or quote that is not closed.
    """
    return [_unquote(value.strip()) for value in _split(text)]


def _split(text: str) -> Iterator[str]:
    value, depth, quoted, escaped = "", 0, False, False
    for letter in text:
        if letter == "," and not depth and not quoted:
            yield value
            value = ""
            continue
        value += letter
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        else:
            depth += (letter in _OPEN) - (letter in _CLOSE)
            require(depth >= 0, f"{text!r} closes a bracket that was not opened: remove it.")
    require(
        not quoted and not depth, f"{text!r} has a bracket or a quote that is not closed: close it."
    )
    yield value


def _unquote(value: str) -> str:
    if value.startswith('"') and value.endswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value
