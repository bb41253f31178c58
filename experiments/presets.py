"""All presets side by side: equal parameters, equal steps, equal text.

Command:   python -m experiments.presets            (or `make table`)
Cost:      about 25 minutes on 2 cores for the eight default presets; --steps shortens it,
           --only names other presets, whose rows join those already kept for the same steps.
Expected:  held-out bits per byte of 2.48 to 2.53 for the five deep memories, of 2.79 to 2.83 for
           the three matrices. One seed each; a few hundredths are noise. Kept in
           results/presets.json and presets.png.

Presets differ in the size of their learned initial memory, so the SwiGLU's width is chosen for
each such that all have the parameters of `yaad`, to within one percent.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import tempfile
from typing import TYPE_CHECKING

import miras
from miras.analysis.costs import costs
from miras.data import DataConfig
from miras.models import LanguageModelConfig
from miras.presets import PRESETS
from miras.runtime.figures import png, write_figure
from miras.runtime.files import write_atomically
from miras.runtime.terminal import tolerant_output
from miras.train import RunConfig, TrainConfig, train
from miras.train.loggers.jsonl import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = pathlib.Path(__file__).parent / "results"
DEFAULT = (
    "linear_attention", "retnet", "deltanet", "ttt_mlp", "titans_lmm", "moneta", "yaad", "memora",
)  # fmt: skip


def matched(config: LanguageModelConfig, parameters: int) -> LanguageModelConfig:
    """The config with the SwiGLU width that brings it nearest to a number of parameters."""
    candidates = [
        dataclasses.replace(config, mlp_ratio=hidden / config.width)
        for hidden in range(8, 8 * config.width, 8)
    ]
    return min(candidates, key=lambda c: abs(costs(c).parameters - parameters))


def run(name: str, parameters: int, steps: int, out: pathlib.Path) -> dict:
    """Train one preset and return its row of the table."""
    model = matched(miras.preset(name), parameters)
    config = RunConfig(
        model=model,
        data=DataConfig(sequence=128, batch=8),
        train=TrainConfig(
            steps=steps,
            learning_rate=6e-3,
            warmup=min(20, steps // 10),
            eval_every=25,
            eval_batches=32,
            checkpoint_every=steps,
        ),
    )
    train(config, out / name)
    lines = read_metrics(out / name / "metrics.jsonl")
    curve = [(x["step"], x["bits_per_byte"]) for x in lines if x["kind"] == "held_out"]
    cost = costs(model)
    return {
        "preset": name,
        "parameters": cost.parameters,
        "state_bytes": cost.state_bytes,
        "flops_per_token": cost.flops,
        "bits_per_byte": curve[-1][1],
        "curve": curve,
    }


def table(rows: list[dict]) -> str:
    """The rows as Markdown, best first."""
    lines = [
        "| preset | held-out bits per byte | parameters | state per sequence | FLOPs per token |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: r["bits_per_byte"]):
        lines.append(
            f"| `{row['preset']}` | {row['bits_per_byte']:.3f} | {row['parameters']:,} | "
            f"{row['state_bytes'] / 2**10:,.0f} KiB | {row['flops_per_token'] / 1e6:.1f} M |"
        )
    return "\n".join(lines)


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """Held-out curves of all presets."""
    write_figure(path, lambda: png(functools.partial(_draw, rows), (7, 4.2)), print)


def _draw(rows: list[dict], figure: "Figure") -> None:
    axes = figure.subplots()
    for row in sorted(rows, key=lambda r: r["bits_per_byte"]):
        steps, bits = zip(*row["curve"])
        axes.plot(steps, bits, label=f"{row['preset']} {row['bits_per_byte']:.2f}")
    axes.set(xlabel="step", ylabel="bits per byte, held out", ylim=(None, 4.2))
    axes.set_title("Equal parameters, steps and text")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)


def main() -> None:
    """Run the experiment and write its results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--only",
        nargs="+",
        default=DEFAULT,
        choices=list(PRESETS),
        metavar="PRESET",
        help="presets to run (default: eight of them)",
    )
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    parameters = costs(miras.preset("yaad")).parameters
    args.results.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            row = run(name, parameters, args.steps, pathlib.Path(folder))
        rows = keep(row, args.steps, args.results / "presets.json")
        plot(rows, args.results / "presets.png")
    print(table(rows))


def keep(row: dict, steps: int, path: pathlib.Path) -> list[dict]:
    """Put a row into the results in place of its preset's former one; return all of these steps."""
    command = f"python -m experiments.presets --steps {steps}"
    kept = json.loads(path.read_text()) if path.exists() else {"command": command, "rows": []}
    former = kept["rows"] if kept["command"] == command else []
    rows = [*(other for other in former if other["preset"] != row["preset"]), row]
    write_atomically(path, json.dumps({"command": command, "rows": rows}, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    with tolerant_output():
        main()
