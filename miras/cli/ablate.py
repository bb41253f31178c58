"""The command `miras ablate`: words to a grid, and what came of it to an exit code.

What needs jax's models or reads text is imported when the command runs, as in `cli`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from miras.config import plugins, require, sweep
from miras.config.sweep import Sweep
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.train import RunConfig

SEEDS = 3
_OPEN, _CLOSE = "[{(", "]})"


def add_parser(commands: Any, new: "Callable[[str, list[str], str | None], RunConfig]") -> None:
    """Add the command to a parser's `add_subparsers()`.

    Args:
        commands: as argparse makes them.
        new: the config of a run from a preset, assignments and a data source.
    """
    parser = commands.add_parser(
        "ablate",
        help="train a grid of models under several seeds, and compare them",
        description="Train every combination of the values given, each under several seeds, and "
        "tell means, intervals and the main effect of each choice. Combinations that have no "
        "meaning are skipped, with the reason. The same command goes on where it stopped.",
        epilog="Examples: `miras ablate yaad bias=l2,lp,huber optim=gd,momentum steps=200`, "
        "`miras ablate titans_lmm chunk=8,16,32 width=64 --seeds 5 --out runs/chunks`.",
    )
    parser.add_argument("preset", metavar="PRESET", help="what the cells are variations of")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KEY=VALUE[,VALUE...]",
        help="a field of the run; several values, between commas outside brackets and quotes, "
        "make an axis of the grid; `optim` is short for `algorithm`",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=SEEDS,
        metavar="N",
        help=f"runs of each cell (default: {SEEDS})",
    )
    parser.add_argument(
        "--data", metavar="PATH|tfds:NAME", help="text to learn (default: the standard library)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the grid (default: runs/ablate-PRESET)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes at once (default: half the CPU's cores, but 2 if there are 2)",
    )
    parser.set_defaults(run=lambda args: _run(args, new))


def _run(args: argparse.Namespace, new: "Callable[[str, list[str], str | None], RunConfig]") -> int:
    points = points_of(args.words)
    require(args.seeds >= 1, f"--seeds {args.seeds} must be at least 1.")
    require(args.jobs is None or args.jobs >= 1, f"--jobs {args.jobs} must be at least 1.")

    from rich.console import Console

    from miras.analysis.ablate import report
    from miras.analysis.ablate.ablation import ablate
    from miras.analysis.ablate.folder import GridFolder
    from miras.analysis.ablate.grid import make_grid
    from miras.presets import preset

    out = f"runs/ablate-{args.preset}" if args.out is None else args.out
    plugins.restore(GridFolder(out).plugins)  # those of a grid that goes on
    preset(args.preset)
    console = Console()
    with console.status("building the cells"):
        grid = make_grid(
            points,
            lambda *assignments: new(args.preset, list(assignments), args.data),
            seeds=args.seeds,
            title=args.preset,
        )
    GridFolder(out).check(grid)
    for line in report.illegal_lines(grid):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    results = ablate(grid, out, jobs=args.jobs, console=console)
    console.print(
        f"written: {out}/table.md, table.csv, effects.csv, results.jsonl and plot.png",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    bad = [outcome for outcome in results.outcomes.values() if outcome.status != "done"]
    if bad:
        again = (
            "; the same command tries again those that failed"
            if any(outcome.status == "failed" for outcome in bad)
            else ""
        )
        print(
            f"miras: {len(bad)} of {len(results.outcomes)} runs did not finish, see {out}/table.md"
            f"{again}.",
            file=sys.stderr,
        )
    return 1 if bad else 0


def points_of(words: list[str]) -> Sweep:
    """The product of all words KEY=VALUE[,VALUE...].

    Raises:
        ConfigError: for a word without "=", a key given twice, or a value that is empty or given
            twice.
    """
    axes: dict[str, Sweep] = {}
    for word in words:
        path, equals, text = word.partition("=")
        path = ".".join(
            "algorithm" if name == "optim" else name for name in path.strip().split(".")
        )
        if not equals or not path:
            raise ConfigError(f"{word!r} is not of the form key=value, e.g. bias=l2,huber.")
        require(path not in axes, f"{path!r} is given twice: give all its values in one word.")
        axes[path] = sweep.axis(path, split_values(text))
    return sweep.product(*axes.values())


def split_values(text: str) -> list[str]:
    """The values between commas; those inside brackets, braces or double quotes are no separators.

    A value in double quotes is JSON text: the quotes are taken off.

    Raises:
        ConfigError: for a bracket or quote that is not closed.
    """
    return [_unquoted(value.strip()) for value in _split(text)]


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
            require(depth >= 0, f"{text!r} closes a bracket that it has not opened.")
    require(not quoted and not depth, f"{text!r} has a bracket or a quote that is not closed.")
    yield value


def _unquoted(value: str) -> str:
    if value.startswith('"') and value.endswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value
