"""Presets side by side: equal parameters, equal steps, one held-out text.

Command:   python -m experiments.presets            (or `make table`; resumes where it stopped)
           --only yaad hope --seeds 2 for other presets or seeds; --steps and KEY=VALUE start
           another study, for which --results names another folder.
Cost:      2 to 10 minutes per run on one busy core, for 33 runs.
Expected:  see experiments/README.md. Kept in results/presets.jsonl and presets.png.

Presets differ in the size of their learned initial memory, so the SwiGLU's width is chosen for
each such that all have the parameters of `yaad`, to within one percent. A seed changes the initial
parameters and the order of the training text, not the held-out text.
"""

import argparse
import functools
import json
import math
import pathlib
import statistics
import tempfile
import time
from typing import TYPE_CHECKING

import miras
from miras.analysis.ablate.grid import seeded
from miras.analysis.ablate.held_out import digest
from miras.analysis.costs import costs
from miras.analysis.match import match
from miras.config import config_hash
from miras.presets.registry import ALIASES, PRESETS
from miras.runtime.figures import png, write_figure
from miras.runtime.terminal import tolerant_output
from miras.train import NonFiniteError, RunConfig, train
from miras.train.evaluate import sample
from miras.train.loggers.jsonl import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = pathlib.Path(__file__).parent / "results"
STEPS = 200
DEFAULT = (
    "transformer++", "linear_attention", "retnet", "mamba2", "mamba3", "deltanet", "gated_deltanet",
    "gated_deltanet2", "momentum_deltanet", "preconditioned_deltanet",
    "preconditioned_gated_deltanet", "preconditioned_kda", "trellis", "log_linear_mamba2",
    "log_linear_gated_deltanet", "ttt_mlp", "titans_lmm", "moneta", "yaad", "memora",
    "tnt_titans", "tnt_ttt", "tnt_yaad", "titans_caching", "moneta_caching", "hope",
    "hope_attention",
)  # fmt: skip
SEEDS = {"tnt_titans": 3, "gated_deltanet2": 3, "hope": 3}  # 1 for every other preset
RECIPE = (
    "data.sequence=128",
    "data.batch=8",
    "data.seed=0",
    "data.content_seed=0",
    # The largest chunk of a preset, so that all are evaluated on the same rows.
    "data.held_out_align=64",
    "train.learning_rate=6e-3",
    "train.eval_batches=32",
)


def configured(name: str, seed: int, steps: int, *words: str) -> RunConfig:
    """The run of one preset at its own size, changed by `words`."""
    config = miras.override(
        RunConfig(model=miras.preset(name)),
        *RECIPE,
        f"train.steps={steps}",
        f"train.warmup={min(20, steps // 10)}",
        f"train.eval_every={max(1, steps // 4)}",
        f"train.checkpoint_every={steps}",
        *words,
    )
    return seeded(config, seed)


def run(config: RunConfig, parameters: int) -> dict:
    """Train a config at a number of parameters and return the measured part of its row."""
    model = match(config.model, parameters, fixed_width=True)
    sized = RunConfig(model=model, data=config.data, train=config.train)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        try:
            train(sized, out)
            lines = read_metrics(out / "metrics.jsonl")
            curve = [(x["step"], x["bits_per_byte"]) for x in lines if x["kind"] == "held_out"]
        except NonFiniteError:
            curve = [(config.train.steps, None)]
    cost = costs(model)
    return {
        "parameters": cost.parameters,
        "state_bytes": cost.state_bytes,
        "growth_bytes": cost.growth_bytes,
        "flops_per_token": cost.flops,
        "seconds": round(time.monotonic() - start),
        "bits_per_byte": curve[-1][1],
        "curve": curve,
    }


def text(config: RunConfig) -> str:
    """A digest of the held-out text of a run, which has the source of the running Python."""
    return digest(sample(config.data, config.model.align, config.train.eval_batches))


def read(path: pathlib.Path) -> list[dict]:
    """The kept rows; of those with one preset, seed and command, the last."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return list({(row["command"], row["preset"], row["seed"]): row for row in rows}.values())


def comparable(rows: list[dict]) -> list[dict]:
    """The rows that were trained and evaluated as the last one was, on the same text."""
    same = ("command", "text", "budget")
    return [row for row in rows if all(row[key] == rows[-1][key] for key in same)]


def _by_preset(rows: list[dict]) -> list[list[dict]]:
    """The rows of each preset, the presets by their mean, those with a NaN last."""
    names = dict.fromkeys(row["preset"] for row in rows)
    groups = [[row for row in rows if row["preset"] == name] for name in names]
    return sorted(groups, key=mean)


def mean(rows: list[dict]) -> float:
    """The mean bits per byte of the rows of a preset; inf if one of them is NaN."""
    found = [row["bits_per_byte"] for row in rows]
    return math.inf if None in found else statistics.fmean(found)


def table(rows: list[dict]) -> str:
    """The rows as Markdown, best first: the mean over seeds, and the least and the most."""
    lines = [
        "| preset | seeds | held-out bits per byte | parameters | state per sequence | "
        "FLOPs per token |",
        "|---|---|---|---|---|---|",
    ]
    for own in _by_preset(rows):
        first, bits = own[0], "NaN"
        if math.isfinite(average := mean(own)):
            bits = f"{average:.3f}"
            found = [row["bits_per_byte"] for row in own]
            bits += f" ({min(found):.3f}-{max(found):.3f})" if len(own) > 1 else ""
        state = f"{first['state_bytes'] / 2**10:,.0f} KiB"
        if first["growth_bytes"]:
            state = f"{first['growth_bytes'] / 2**10:,.0f} KiB per token"
        lines.append(
            f"| `{first['preset']}` | {len(own)} | {bits} | {first['parameters']:,} | {state} | "
            f"{first['flops_per_token'] / 1e6:.1f} M |"
        )
    return "\n".join(lines)


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """Every seed of every preset as a point, best first."""
    height = 1.2 + 0.22 * len({row["preset"] for row in rows})
    write_figure(path, lambda: png(functools.partial(_draw, rows), (7, height)), print)


def _draw(rows: list[dict], figure: "Figure") -> None:
    axes = figure.subplots()
    groups = [own for own in _by_preset(rows) if math.isfinite(mean(own))]
    for height, own in enumerate(groups):
        bits = [row["bits_per_byte"] for row in own]
        axes.plot(bits, [height] * len(own), color="#23527c", marker="o", markersize=4, alpha=0.8)
    axes.set_yticks(range(len(groups)), [own[0]["preset"] for own in groups], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("bits per byte, held out; a point is a seed")
    axes.set_title("Equal parameters, steps and text")
    axes.grid(alpha=0.3)


def main(argv: list[str] | None = None) -> None:
    """Run what is not kept yet, and write the results after each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--only",
        nargs="+",
        default=DEFAULT,
        choices=[*PRESETS, *ALIASES],
        metavar="PRESET",
        help=f"presets to run (default: {len(DEFAULT)} of them)",
    )
    parser.add_argument("--seeds", type=int, help=f"of every preset (default: 1, and {SEEDS})")
    parser.add_argument("--again", action="store_true", help="also run what is kept")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="changes every run's config")
    args = parser.parse_args(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "presets.jsonl"
    budget = costs(configured("yaad", 0, args.steps, *args.words).model).parameters
    command = " ".join(["python -m experiments.presets", f"--steps {args.steps}", *args.words])
    counts = {name: args.seeds or SEEDS.get(name, 1) for name in args.only}
    for seed in range(max(counts.values())):
        for name in (name for name, count in counts.items() if seed < count):
            config = configured(name, seed, args.steps, *args.words)
            key = {
                "preset": name,
                "seed": seed,
                "command": command,
                "config": config_hash(config),
                "budget": budget,
                "text": text(config),
            }
            if not args.again and any(key.items() <= row.items() for row in read(path)):
                continue
            row = key | run(config, budget)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
            plot(comparable(read(path)), args.results / "presets.png")
    print(table(comparable(read(path))))


if __name__ == "__main__":
    with tolerant_output():
        main()
