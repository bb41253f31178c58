"""The picture of a run: bits per byte over steps, on the training text and on held-out text."""

import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from miras.train.metrics import Line

_INK, _TRAIN, _HELD_OUT = "#333333", "#8fb4d9", "#c8553d"


def plot_loss(lines: list[Line], title: str, path: pathlib.Path, what: str = "text") -> None:
    """Draw a run's loss curves as a PNG.

    Args:
        lines: as `metrics.read_metrics` gives them.
        title: of the picture.
        path: the file to write.
        what: the bytes are of.

    Raises:
        OSError: where it cannot be written.
    """
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    train = _curve(lines, "train")
    held_out = _curve(lines, "held_out")
    axes.plot(*train, color=_TRAIN, linewidth=1.4, label=f"training {what}")
    axes.plot(
        *held_out,
        color=_HELD_OUT,
        linewidth=1.8,
        marker="o",
        markersize=3.5,
        label=f"held-out {what}",
    )
    if held_out[0]:
        step, bits = held_out[0][-1], held_out[1][-1]
        axes.annotate(
            f"{bits:.3f}",
            (step, bits),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=_HELD_OUT,
            fontweight="bold",
        )
    axes.set_title(title, loc="left", color=_INK, fontsize=12, fontweight="bold")
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel("bits per byte", color=_INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.05, y=0.08)
    axes.tick_params(colors=_INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.legend(frameon=False, labelcolor=_INK)
    figure.savefig(path)


def _curve(lines: list[Line], kind: str) -> tuple[list[int], list[float]]:
    points = [
        (line["step"], line["bits_per_byte"])
        for line in lines
        if line.get("kind") == kind and line.get("bits_per_byte") is not None
    ]
    return [step for step, _ in points], [bits for _, bits in points]
