"""The loss curves of a run by step, on training and on held-out rows: bits per byte of text."""

import functools
import pathlib
from typing import TYPE_CHECKING, NamedTuple

from miras.runtime.figures import INK, png, printable_line, style_curves
from miras.runtime.files import write_atomically
from miras.train.loggers.jsonl import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """What is drawn.

    Attributes:
        field: of the lines of a run's metrics.
        label: of its axis.
        rows: what the rows are, for the legend.
    """

    field: str = "bits_per_byte"
    label: str = "bits per byte"
    rows: str = "text"


TEXT = Curve()
_TRAIN, _HELD_OUT = "#8fb4d9", "#c8553d"


def plot_loss(lines: list[Line], title: str, path: pathlib.Path, curve: Curve = TEXT) -> None:
    """Write the loss curves of a run as a PNG.

    Args:
        lines: as returned by `read_metrics`.
        title: of the figure.
        path: the file to write.
        curve: what is drawn.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, loss_curves(lines, title, curve))


def loss_curves(lines: list[Line], title: str, curve: Curve = TEXT) -> bytes:
    """The loss curves of a run as a PNG; the arguments are those of `plot_loss`."""
    return png(functools.partial(_draw, lines, printable_line(title), curve), (8, 4.5))


def _draw(lines: list[Line], title: str, curve: Curve, figure: "Figure") -> None:
    axes = figure.add_subplot()
    train = _points(lines, "train", curve.field)
    held_out = _points(lines, "held_out", curve.field)
    axes.plot(*train, color=_TRAIN, linewidth=1.4, label=f"training {curve.rows}")
    axes.plot(
        *held_out,
        color=_HELD_OUT,
        linewidth=1.8,
        marker="o",
        markersize=3.5,
        label=f"held-out {curve.rows}",
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
    axes.set_ylabel(curve.label, color=INK)
    axes.legend(frameon=False, labelcolor=INK)


def _points(lines: list[Line], kind: str, field: str) -> tuple[list[int], list[float]]:
    points = [
        (line["step"], line[field])
        for line in lines
        if line.get("kind") == kind and isinstance(line.get(field), (int, float))
    ]
    return [step for step, _ in points], [value for _, value in points]
