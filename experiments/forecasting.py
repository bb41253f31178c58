"""Forecasts of a memory model beside closed-form baselines and published errors, at equal lookback.

Command:   python -m experiments.forecasting --data-dir FOLDER     (goes on where it was stopped)
           FOLDER holds ETTh1.csv and national_illness.csv; --sets, --horizons and --seeds for less,
           --change KEY=VALUE ... for another recipe, whose results are kept beside the others;
           several at once may write to one folder, each with horizons of its own.
Cost:      1 to 2 minutes a run on one idle core; 24 runs.
Expected:  see experiments/README.md. Kept in results/forecasting.jsonl and forecasting.md.

The model is `yaad`, one layer of width 16 between patches and a head with a linear map beside it
(`task.skip=linear`), trained on the absolute error. The sets have the papers' splits and are
standardised by the training part; errors are means over all test windows at stride 1, of
standardised values. The recipe is one of nine that were tried on ETTh1 with one seed, at horizons
96 or 720, whose test errors were seen.
"""

import argparse
import functools
import json
import math
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax

from miras.cli.runs import run_config
from miras.runtime.terminal import tolerant_output
from miras.train import train

RESULTS = pathlib.Path(__file__).parent / "results"
SETS = {  # file, lookback, horizons, and what is changed of the recipe
    "ETTh1": ("ETTh1.csv", 96, (96, 192, 336, 720), ()),
    "ILI": ("national_illness.csv", 36, (24, 36, 48, 60), ("steps=300", "data.batch=32")),
}
PRESET = "yaad"
RECIPE = (
    *("task=forecast", "task.skip=linear", "task.loss=mae"),
    *("width=16", "heads=2", "layers=1", "chunk=4", "remat=none"),
    *("data.batch=256", "steps=800", "learning_rate=1e-3", "schedule=wsd", "eval_every=400"),
    *("eval_batches=30", "log_every=100", "health_every=100000", "checkpoint_every=100000"),
)
# Means over the four horizons of ETTh1, as the papers report them (MSE, MAE).
PUBLISHED = {
    "Titans, memory alone (2501.00663)": (0.420, 0.421),
    "Simba (2403.15360)": (0.441, 0.432),
    "iTransformer (2310.06625)": (0.454, 0.447),
    "PatchTST (2211.14730)": (0.469, 0.454),
    "DLinear (2205.13504)": (0.456, 0.452),
}


def main() -> None:
    """Train what is missing, and write the table."""
    args = _parser().parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "forecasting.jsonl"
    cases = [
        (seed, name, horizon)
        for seed in range(args.seeds)
        for name in args.sets
        for horizon in args.horizons or SETS[name][2]
    ]
    for seed, name, horizon in cases:
        file, lookback, _, changes = SETS[name]
        key = {"set": name, "change": " ".join(args.change), "horizon": horizon, "seed": seed}
        if not any(key.items() <= line.items() for line in _read(path)):
            words = (f"task.lookback={lookback}", f"task.horizon={horizon}")
            line = key | _run(args.data_dir / file, (*words, *changes, *args.change), seed)
            with path.open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(line, flush=True)
    table = markdown(_read(path))
    (args.results / "forecasting.md").write_text(table)
    print(table)


def _run(source: pathlib.Path, words: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Train one model; its errors on the test part, and those of the baselines."""
    begun = time.monotonic()
    seeds = (f"train.seed={seed}", f"data.seed={seed}")
    config = run_config(PRESET, [*RECIPE, f"data.source={source}", *words, *seeds], None)
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, pathlib.Path(folder) / "run")
    found = result.held_out._asdict()
    task = config.data.task
    assert task is not None
    return {
        "lookback": found["lookback"],
        "mse": found["mse"],
        "mae": found["mae"],
        "windows": found["windows"],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(result.state.params)),
        "steps": config.train.steps,
        "seconds": round(time.monotonic() - begun),
        "baselines": _baselines(config.data),
    }


@functools.lru_cache
def _baselines(data: Any) -> dict[str, dict[str, float]]:
    return {reference.name: reference.scores for reference in data.task.references(data)}


def markdown(lines: list[dict[str, Any]]) -> str:
    """A table of each set and change of the recipe, and one of published errors."""
    parts = []
    for name, change in sorted({(line["set"], line["change"]) for line in lines}):
        own = [line for line in lines if (line["set"], line["change"]) == (name, change)]
        parts.append(_table(name, change, own))
    rows = ["| published mean of ETTh1 | MSE/MAE |", "|---|---|"]
    rows += [f"| {model} | {_pair(*errors)} |" for model, errors in PUBLISHED.items()]
    return "\n".join([*parts, *rows]) + "\n"


def _table(name: str, change: str, lines: list[dict[str, Any]]) -> str:
    """A set's errors by horizon, and their means if all horizons are there."""
    lookback, baselines = lines[0]["lookback"], list(lines[0]["baselines"])
    kinds = [kind.split(" (")[0] for kind in baselines]
    head = f"{name}, lookback {lookback}, MSE/MAE"
    what = f", `{change}`" if change else ""
    rows = [
        f"| {head} | memory model{what} | {' | '.join(kinds)} |",
        "|---" * (2 + len(kinds)) + "|",
    ]
    every: list[list[tuple[float, float]]] = []
    for horizon in sorted({line["horizon"] for line in lines}):
        own = [line for line in lines if line["horizon"] == horizon]
        errors = [[line[metric] for line in own] for metric in ("mse", "mae")]
        mse, mae = (statistics.fmean(x) for x in errors)
        spread = "/".join(f"{_half_width(x):.3f}" for x in errors)
        others = [(x["mse"], x["mae"]) for x in own[0]["baselines"].values()]
        every.append([(mse, mae), *others])
        told = " | ".join(_pair(*pair) for pair in others)
        seeds = f"± {spread} ({len(own)} seeds)" if len(own) > 1 else "(1 seed)"
        rows.append(f"| {horizon} | {_pair(mse, mae)} {seeds} | {told} |")
    if len(every) == len(SETS[name][2]):
        means = [
            tuple(statistics.fmean(x) for x in zip(*column, strict=True))
            for column in zip(*every, strict=True)
        ]
        rows.append(f"| mean | {' | '.join(_pair(*mean) for mean in means)} |")
    return "\n".join(rows) + "\n"


def _pair(mse: float, mae: float) -> str:
    return f"{mse:.3f}/{mae:.3f}"


def _half_width(values: list[float]) -> float:
    """Of the 95 % interval of Student's t."""
    quantiles = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
    if len(values) not in quantiles:
        return math.nan
    return quantiles[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--data-dir", type=pathlib.Path, required=True, help="folder of the files")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--horizons", nargs="+", type=int, default=[], help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument(
        "--change", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe"
    )
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder to write to")
    return parser


if __name__ == "__main__":
    with tolerant_output():
        main()
