"""What an ablation concludes under default, raw and matched inner rates.

Trains the grid of README's ablation around yaad, bias x retention x algorithm, three times: each
swapped part at the defaults of its kind, at yaad's own rate, and at the rate that writes as
strongly as yaad does. Every run is evaluated on the same held-out text.

    python -m experiments.rates [--seeds N] [--only default,raw,matched]

Finished runs are kept in `experiments/results/rates.jsonl`, so that the same command resumes. Cost:
30 to 60 seconds of processor time a run, 162 runs. Expected (one seed): a spread between cells of
0.25 bits per byte under default rates, 0.48 under raw and 0.03 under matched ones; no run is NaN.
"""

import argparse
import itertools
import json
import math
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from rich.console import Console

import miras
from miras.analysis.strength.swap import settle
from miras.train import NonFiniteError, RunConfig, train

RESULTS = pathlib.Path(__file__).parent / "results" / "rates.jsonl"
SIZE = [
    "width=32",
    "heads=2",
    "layers=2",
    "chunk=16",
    "vocab=257",
    "steps=100",
    "sequence=128",
    "batch=8",
    "eval_batches=16",
    "eval_every=100",
    "checkpoint_every=100",
    "data.seed=0",
]
BIASES, RETENTIONS, ALGORITHMS = ("huber", "l2", "lp"), ("l2", "lq", "kl"), ("gd", "momentum")
MODES = ("default", "raw", "matched")


def runs(seeds: int, modes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The keys of all runs: seed by seed, cell by cell, all rates of a cell in turn."""
    cells = itertools.product(BIASES, RETENTIONS, ALGORITHMS)
    names = [f"bias={b} retention={r} algorithm={a}" for b, r, a in cells]
    for seed, cell, mode in itertools.product(range(seeds), names, modes):
        yield {"cell": cell, "rates": mode, "seed": seed}


def config(run: dict[str, Any]) -> RunConfig:
    """The config of a run; under "default" each part named is one of its kind's defaults."""
    base = miras.override(RunConfig(model=miras.preset("yaad")), *SIZE)
    words = run["cell"].split()
    if run["rates"] == "default":
        pairs = [word.split("=") for word in words]
        words = [f"{axis}={json.dumps({'kind': kind})}" for axis, kind in pairs]
        # A part that yaad has already keeps its fields, all but the rate.
        words = [
            word
            for word, (axis, kind) in zip(words, pairs, strict=True)
            if axis == "algorithm" or base.model.rule.kinds()[axis] != kind
        ]
    changed = miras.override(base, f"train.seed={run['seed']}", *words)
    model = settle(changed.model, base.model, words, run["rates"])
    return RunConfig(model=model, data=changed.data, train=changed.train)


def measure(run: dict[str, Any]) -> dict[str, Any]:
    """Train a run and return its key with the rate and the held-out bits per byte; None for NaN."""
    settled = config(run)
    with tempfile.TemporaryDirectory() as folder:
        try:
            held_out = train(settled, folder, console=Console(quiet=True)).held_out
            bits = held_out._asdict()["bits_per_byte"]
        except NonFiniteError:
            bits = None
    return {**run, "lr": settled.model.rule.algorithm.lr, "bits_per_byte": bits}


def finished() -> list[dict[str, Any]]:
    """The results so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown: a row a cell, a column for each choice of rates."""
    lines = ["| bias, retention, algorithm | default | raw | matched |", "|---|---|---|---|"]
    cells = list(dict.fromkeys(result["cell"] for result in results))
    means: dict[str, list[float]] = {mode: [] for mode in MODES}
    for cell in cells:
        row = [", ".join(word.partition("=")[2] for word in cell.split())]
        for mode in MODES:
            found = [r for r in results if (r["cell"], r["rates"]) == (cell, mode)]
            row.append(_cell(found))
            values = [r["bits_per_byte"] for r in found]
            if values and None not in values:
                means[mode].append(math.fsum(values) / len(values))
        lines.append(f"| {' | '.join(row)} |")
    spread = [f"{max(x) - min(x):.2f}" if x else "" for x in means.values()]
    return "\n".join([*lines, f"| **spread of the finite cells** | {' | '.join(spread)} |"])


def _cell(found: list[dict[str, Any]]) -> str:
    if not found:
        return ""
    values, rate = [r["bits_per_byte"] for r in found], f"lr {found[0]['lr']:.3g}"
    if None in values:
        return f"NaN ({rate})"
    return f"{math.fsum(values) / len(values):.3f} ({rate})"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(MODES), help="of default, raw, matched")
    args = parser.parse_args()
    keys = ("cell", "rates", "seed")
    for run in runs(args.seeds, tuple(args.only.split(","))):
        if run not in [{key: result[key] for key in keys} for result in finished()]:
            result = measure(run)
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(result, flush=True)
    print(table(finished()))


if __name__ == "__main__":
    main()
