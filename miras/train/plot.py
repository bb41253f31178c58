"""The loss curves of a run: bits per byte by step, on training and on held-out text."""

import functools
import pathlib
from typing import TYPE_CHECKING

from miras.runtime.figures import INK, png, printable_line, style_curves
from miras.runtime.files import write_atomically
from miras.train.loggers.jsonl import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN, _HELD_OUT = "#8fb4d9", "#c8553d"


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
    style_curves(axes, title, size=12, margin=0.05)
    axes.set_ylabel("bits per byte", color=INK)
    axes.legend(frameon=False, labelcolor=INK)


def _curve(lines: list[Line], kind: str) -> tuple[list[int], list[float]]:
    points = [
        (line["step"], line["bits_per_byte"])
        for line in lines
        if line.get("kind") == kind and isinstance(line.get("bits_per_byte"), (int, float))
    ]
    return [step for step, _ in points], [bits for _, bits in points]
