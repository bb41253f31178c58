"""`miras eval RUN --task perplexity`: perplexity per word, token and byte, and by position."""

import argparse
import os
from typing import TYPE_CHECKING

from miras.cli.eval_output import Bar, write_results
from miras.cli.output import print_line
from miras.cli.runs import load_run
from miras.config import override, require
from miras.errors import ConfigError
from miras.runtime import signals
from miras.runtime.paths import local_path

if TYPE_CHECKING:
    from rich.table import Table

    from miras.analysis.eval.perplexity import PerplexityResults

NAME = "perplexity"
_OTHERS = ("lengths", "depths", "examples", "seed", "batches")


def evaluate(args: argparse.Namespace) -> int:
    """Measure the perplexity, print tables and write `perplexity.json`."""
    for name in _OTHERS:
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} does not apply to task perplexity: leave it out.")
    require(
        args.data is not None,
        "task perplexity needs --data FILE: a text that the run was not trained on.",
    )

    from rich.console import Console

    from miras.analysis.eval.perplexity import Perplexity, evaluate_perplexity
    from miras.runtime.files import check_target

    options = override(Perplexity(), *(word.removeprefix("task.") for word in args.overrides))
    run = load_run(args.folder)
    folder = local_path(os.path.join(args.folder, "eval") if args.out is None else args.out)
    path = folder / f"{NAME}.json"
    check_target(path)
    console = Console()
    with signals.handled(), Bar(console, None) as bar:
        results = evaluate_perplexity(
            run, args.data, options, name=args.folder, progress=bar.advance
        )
    for table in tables(results):
        console.print(table)
    write_results(path, results.to_json())
    print_line(console, f"written: {path}")
    return 0


def tables(results: "PerplexityResults") -> "tuple[Table, Table]":
    """The perplexities of all text, and those by position."""
    from rich import box
    from rich.table import Table

    from miras.analysis.eval.perplexity import EDGES
    from miras.analysis.eval.report import tokens

    whole = Table(box=None, show_header=False, pad_edge=False)
    everything = results.all
    for name, value in {
        "perplexity per word": f"{results.word_perplexity:,.4f}",
        "perplexity per token": f"{everything.perplexity:,.4f}",
        "perplexity per byte": f"{results.byte_perplexity:.4f}",
        "bits per byte": f"{everything.bits_per_byte:.4f}",
        "documents": f"{results.documents:,}",
        "words": f"{results.words:,}",
        "tokens": f"{everything.tokens:,}",
        "bytes": f"{everything.bytes:,.0f}",
    }.items():
        whole.add_row(name, value)
    by_position = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("positions from", "tokens", "perplexity per token", "bits per byte"):
        by_position.add_column(title, justify="right")
    for first, sums in zip(EDGES, results.buckets):
        if sums.tokens:
            cells = f"{sums.tokens:,}", f"{sums.perplexity:.4f}", f"{sums.bits_per_byte:.4f}"
            by_position.add_row("1M" if first == 2**20 else tokens(first), *cells)
    return whole, by_position
