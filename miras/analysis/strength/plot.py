"""The plot of a strength curve, with presets at their own rates."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from miras.analysis.strength.curve import Strength
from miras.runtime.figures import png, printable_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWEST = 3e-3  # of the strengths shown
_INK, _CURVE, _OTHER, _OWN = "#333333", "#4c78a8", "#999999", "#c8553d"


def curve_plot(title: str, found: Strength, presets: Mapping[str, Strength]) -> bytes:
    """The curve of a rule over rates, as a PNG.

    Args:
        title: of the figure.
        found: of the rule.
        presets: by name, each drawn as a point at its own rate and strength.
    """
    return png(functools.partial(_draw, printable_line(title), found, presets), (8, 4.8))


def _draw(title: str, found: Strength, presets: Mapping[str, Strength], figure: "Figure") -> None:
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):  # text is literal here, powers of ten would not be set
        axis.set_major_formatter("{x:g}")
    shown = found.values > LOWEST
    axes.plot(found.rates[shown], found.values[shown], color=_CURVE, linewidth=2)
    if found.peak is not None:
        axes.axhline(found.peak / 2, color=_CURVE, linewidth=0.8, linestyle=":")
        axes.text(
            0.005,
            found.peak / 2,
            "half of the peak",
            transform=axes.get_yaxis_transform(),
            color=_CURVE,
            fontsize=8,
            va="bottom",
        )
    for name, other in presets.items():
        _mark(axes, name, other, _OTHER)
    _mark(axes, "this rule", found, _OWN)
    axes.set_ylim(LOWEST, 1)
    axes.set_xlabel("inner rate at the start (algorithm.lr)", color=_INK)
    axes.set_ylabel("write strength s", color=_INK)
    axes.set_title(title, loc="left", color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mark(axes: "Axes", name: str, found: Strength, color: str) -> None:
    """A point with its name."""
    axes.plot([found.rate], [found.value], "o", color=color, markersize=5)
    axes.annotate(
        name,
        (found.rate, found.value),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=color,
        fontsize=8,
    )
