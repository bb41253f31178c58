"""The learning curves of several runs as a PNG: held-out text, training, and speed."""

import functools
from typing import TYPE_CHECKING

from miras.analysis.compare.curves import MEASURES, ComparedRun
from miras.runtime.figures import INK, png, printable_line, style_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour blindness can tell apart; then other dashes.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")
_DASHES = ("-", "--", ":", "-.")


def learning_curves(runs: list[ComparedRun]) -> bytes:
    """The figure of some runs, as a PNG."""
    return png(functools.partial(_draw, runs), (10, 5.5 + 0.18 * len(runs)))


def _draw(runs: list[ComparedRun], figure: "Figure") -> None:
    left, right = figure.subplots(1, 2)
    text = any(run.curve(*MEASURES["held-out bits per byte"]) for run in runs)
    what = "bits per byte" if text else "accuracy"
    name = f"held-out {what}"
    for number, run in enumerate(runs):
        color = COLORS[number % len(COLORS)]
        dash = _DASHES[number // len(COLORS) % len(_DASHES)]
        _curve(left, run, name, color, dash)
        _curve(right, run, "training loss", color, dash)
    style_curves(left, name, size=11, margin=0.03)
    style_curves(right, "training loss, nats per token", size=11, margin=0.03)
    figure.legend(
        handles=left.get_lines() or right.get_lines(),
        labels=[printable_line(_label(run)) for run in runs],
        loc="outside lower left",
        frameon=False,
        labelcolor=INK,
        fontsize=9,
    )


def _curve(axes: "Axes", run: ComparedRun, name: str, color: str, dash: str) -> None:
    points = run.curve(*MEASURES[name])
    marker = "o" if len(points) <= 30 else None
    axes.plot(
        [step for step, *_ in points],
        [value for _, value, _ in points],
        color=color,
        linestyle=dash,
        linewidth=1.6,
        marker=marker,
        markersize=3.5,
    )


def _label(run: ComparedRun) -> str:
    text = " ".join(run.differences)
    text = text if len(text) <= 100 else f"{text[:97]}..."
    return f"{run.name}: {text}" if text else run.name
