"""The loss curves of a run: bits per byte by step, on training and on held-out text."""

import functools
import pathlib
from typing import TYPE_CHECKING

from miras.runtime.figures import png, printable_line
from miras.runtime.files import write_atomically
from miras.train.loggers.jsonl import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _TRAIN, _HELD_OUT = "#333333", "#8fb4d9", "#c8553d"


def plot_loss(lines: list[Line], title: str, path: pathlib.Path, what: str = "text") -> None:
    """Write the loss curves of a run as a PNG.

    Args:
        lines: as returned by `read_metrics`.
        title: of the figure.
        path: the file to write.
        what: "text" or "answers", for the legend.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, loss_curves(lines, title, what))


def loss_curves(lines: list[Line], title: str, what: str = "text") -> bytes:
    """The loss curves of a run as a PNG; the arguments are those of `plot_loss`."""
    return png(functools.partial(_draw, lines, printable_line(title), what), (8, 4.5))


def _draw(lines: list[Line], title: str, what: str, figure: "Figure") -> None:
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


def _curve(lines: list[Line], kind: str) -> tuple[list[int], list[float]]:
    points = [
        (line["step"], line["bits_per_byte"])
        for line in lines
        if line.get("kind") == kind and isinstance(line.get("bits_per_byte"), (int, float))
    ]
    return [step for step, _ in points], [bits for _, bits in points]
