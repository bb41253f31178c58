"""Draws docs/assets/evidence.svg, the figure of the README, from kept results.

Command:   python docs/figures/evidence.py
Reads:     experiments/results/recall.jsonl and benchmarks/results/peers.md.
"""

import json
import pathlib
import re
import statistics

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).parents[2]
OUT = ROOT / "docs" / "assets" / "evidence.svg"
RECALL = ROOT / "experiments" / "results" / "recall.jsonl"
PEERS = ROOT / "benchmarks" / "results" / "peers.md"
# model: (colour, label's height in the plot)
MODELS = {
    "moneta": ("#c0392b", 0.98),
    "gated_deltanet": ("#1f5f99", 0.45),
    "transformer++ conv": ("#6b7785", 0.345),
    "memora": ("#8e6bb0", 0.165),
    "yaad": ("#2e8b57", 0.09),
    "linear_attention": ("#b58900", 0.015),
}
# (peer, chunk): (colour, label)
RATIOS = {
    ("titans-pytorch", "16"): ("#c0392b", "titans-pytorch, chunk 16"),
    ("titans-pytorch", "64"): ("#e08e79", "titans-pytorch, chunk 64"),
    ("qwen3-next", "64"): ("#1f5f99", "Gated DeltaNet of transformers"),
}


def main() -> None:
    """Draw and write the figure."""
    settings = {
        "svg.hashsalt": "miras", "font.size": 10, "axes.spines.top": False,
        "axes.spines.right": False, "axes.edgecolor": "#8a97a5", "axes.titlesize": 11,
        "axes.titlelocation": "left", "axes.titleweight": "bold",
    }  # fmt: skip
    with rc_context(settings):
        figure = Figure(figsize=(10.4, 3.9), layout="constrained")
        recall, speed = figure.subplots(1, 2, width_ratios=(1.2, 1))
        _recall(recall)
        _speed(speed)
        figure.savefig(OUT, metadata={"Date": None})


def _recall(axes: Axes) -> None:
    """S-NIAH over length: means over seeds, with the least and the most as a band."""
    rows = [json.loads(line) for line in RECALL.read_text().splitlines()]
    for model, (color, height) in MODELS.items():
        own = [r["exact_match"] for r in rows if (r["model"], r["task"]) == (model, "niah")]
        lengths = [int(length) for length in own[0]]
        columns = [[scores[str(length)] for scores in own] for length in lengths]
        strong = model == "moneta"
        axes.plot(
            lengths, [statistics.fmean(column) for column in columns], color=color, marker="o",
            linewidth=2.6 if strong else 1.5, markersize=6 if strong else 4, zorder=3 + strong,
        )  # fmt: skip
        low, high = ([f(column) for column in columns] for f in (min, max))
        axes.fill_between(lengths, low, high, color=color, alpha=0.08, linewidth=0)
        axes.text(
            2300, height, model, color=color, va="center", fontsize=9.5,
            fontweight="bold" if strong else "normal",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks([128, 512, 2048], ["128\n(trained at)", "512\n(4 times)", "2,048\n(16 times)"])
    axes.minorticks_off()
    axes.set(xlim=(115, 7400), ylim=(-0.03, 1.05), xlabel="tokens of context")
    axes.set_title("Needle in a haystack: exact match")
    axes.grid(axis="y", alpha=0.25)


def _speed(axes: Axes) -> None:
    """Peers' time over ours, forward + backward, as the text grows."""
    for (peer, chunk), (color, label) in RATIOS.items():
        pattern = (
            rf"^\| {peer} \| {chunk} \| forward \+ backward \| (\d+) \|[^|]*\|[^|]*\| ([\d.]+) \|"
        )
        found = re.findall(pattern, PEERS.read_text(), re.MULTILINE)
        lengths, ratios = ([float(x) for x in column] for column in zip(*found, strict=True))
        axes.plot(lengths, ratios, color=color, marker="o", markersize=4, label=label)
    axes.axhline(1, color="#8a97a5", linewidth=1, linestyle=(0, (4, 4)))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    ticks = [1024, 2048, 4096, 8192, 16384]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_yticks([1, 2, 4, 8, 16, 32], [f"{n}x" for n in (1, 2, 4, 8, 16, 32)])
    axes.minorticks_off()
    axes.set(ylim=(0.85, 48), xlabel="tokens, forward + backward on 2 CPU cores")
    axes.set_title("Their time over that of miras")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    main()
