"""The command `miras strength`: prints and plots how strongly a rule writes, by its inner rate."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from miras.cli.options import MODEL_FIELDS, model_overrides, split_preset
from miras.cli.output import print_line, print_tables
from miras.config import override, require

if TYPE_CHECKING:
    from rich.table import Table

    from miras.analysis.strength import Strength
    from miras.analysis.strength.memories import MemoryOf
    from miras.models import LanguageModelConfig

AGAINST = "yaad,moneta,memora,titans_lmm,ttt_mlp,omeganet,atlas"  # deep, tuned by hand


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "strength",
        help="measure how strongly a rule writes at each inner rate",
        description="Print the write strength of a model's rule at its inner rate, its curve over "
        "rates and its peak, beside the strength of presets, and plot them. Inner rates of "
        "different rules do not compare; write strengths do.",
        epilog="Examples: `miras strength yaad`, `miras strength yaad bias=lp retention=lq`.",
    )
    parser.add_argument("overrides", nargs="+", metavar="PRESET [KEY=VALUE ...]", help=MODEL_FIELDS)
    parser.add_argument(
        "--against",
        default=AGAINST,
        metavar="NAME,...",
        help="presets to mark on the plot, or none (default: %(default)s)",
    )
    parser.add_argument("--plot", metavar="FILE.png", help="where to write the plot")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from miras.analysis.strength.plot import curve_plot
    from miras.presets import preset
    from miras.runtime.figures import write_figure

    name, overrides = split_preset(args.overrides)
    require(name is not None, f"{args.overrides[0]!r} is no preset: write `miras strength yaad`.")
    assert name is not None
    console, words = Console(), model_overrides(overrides)
    memory = _memory(override(preset(name), *words))
    others = [] if args.against == "none" else args.against.split(",")
    known = {other: _memory(preset(other)) for other in others}
    found = _measured(memory)
    presets = {other: _measured(own._replace(d=memory.d)) for other, own in known.items()}
    print_line(console, _summary(memory, found))
    print_tables(_table(found), *([_presets_table(presets)] if presets else []))
    if args.plot is not None:
        title = f"Write strength of {' '.join([name, *words])}, head width {memory.d}"
        if write_figure(
            pathlib.Path(args.plot),
            lambda: curve_plot(title, found, presets),
            lambda reason: print_line(console, reason),
        ):
            print_line(console, f"written: {args.plot}")
    return 0


def _memory(config: "LanguageModelConfig") -> "MemoryOf":
    """The first rule of a model that is written at a rate; ConfigError without one."""
    from miras.analysis.strength.memories import memories

    found = next(memories(config), None)
    kinds = ", ".join(config.rule.kinds().values())
    require(found is not None, f"{kinds} has no inner rate, and so no write strength.")
    assert found is not None
    return found


def _measured(memory: "MemoryOf") -> "Strength":
    from miras.analysis.strength import strength

    _, rule, chunk, d, lr_by_position = memory
    return strength(rule, d, chunk=chunk, lr_by_position=lr_by_position)


def _summary(memory: "MemoryOf", found: "Strength") -> str:
    peak = (
        "no peak, as without a norm"
        if found.peak is None
        else f"peak {found.peak:.3g} at lr={found.peak_rate:.2g}"
    )
    flat = "; the same at any lr" if found.flat else ""
    return (
        f"{memory.path}: strength {found.value:.3g} at lr={found.rate:g} (gain {found.gain:.3g}, "
        f"{peak}), head width {memory.d}, chunk {memory.chunk}; a start should be at most "
        f"{found.limit(memory.chunk):.3g}{flat}"
    )


def _table(found: "Strength") -> "Table":
    from rich.table import Table

    rows = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("lr", "strength"):
        rows.add_column(column, justify="right")
    for rate, value in zip(found.rates[::2], found.values[::2], strict=True):
        if value > 1e-4:
            rows.add_row(f"{rate:.2g}", f"{value:.3g}")
    return rows


def _presets_table(presets: "dict[str, Strength]") -> "Table":
    from rich.table import Table

    rows = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    rows.add_column("preset")
    for column in ("lr", "strength", "peak"):
        rows.add_column(column, justify="right")
    for name, found in presets.items():
        peak = "-" if found.peak is None else f"{found.peak:.3g}"
        rows.add_row(name, f"{found.rate:g}", f"{found.value:.3g}", peak)
    return rows
