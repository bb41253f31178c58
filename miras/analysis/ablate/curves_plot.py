"""The figure of learning curves: means with bands, and paired differences to the base."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from miras.analysis.ablate.curves import CellCurve, cell_curves, x_axis
from miras.analysis.ablate.estimate import Estimate
from miras.analysis.ablate.report import heading
from miras.analysis.ablate.results import GridResults
from miras.analysis.compare.figure import COLORS
from miras.runtime.figures import INK, png, printable_line, style_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BASE = "#222222"
_MOST = len(COLORS)  # cells beside the base, each in a colour of its own


def plot_curves(results: GridResults) -> bytes:
    """Draw the learning curves of the cells with two measurements or more, as a PNG."""
    curves = [curve for curve in cell_curves(results) if len(curve.x) > 1]
    base = [curve for curve in curves if curve.cell is results.base]
    others = [curve for curve in curves if curve.cell is not results.base]
    drawn = [*base, *others[:_MOST]]
    colors = [_BASE] * len(base) + list(COLORS[: len(others)])
    paired = [(c, color) for c, color in zip(drawn, colors) if c.differences]
    left_out = len(others) - _MOST

    def draw(figure: "Figure") -> None:
        left, *right = figure.subplots(1, 1 + bool(paired), squeeze=False)[0]
        name, axis = results.metric.name, x_axis(results)
        for curve, color in zip(drawn, colors):
            _band(left, curve.x, curve.values, color)
        _limits(left, [curve.values for curve in drawn])
        style_curves(left, f"held-out {name}", size=11, margin=0.02)
        left.set_xlabel(axis, color=INK)
        for axes in right:
            for curve, color in paired:
                _band(axes, curve.x, curve.differences, color)
            axes.axhline(0, color=_BASE, linewidth=1.2)
            _limits(axes, [curve.differences for curve, _ in paired])
            style_curves(axes, f"difference to {_short(results.base.name)}", size=11, margin=0.02)
            axes.set_xlabel(axis, color=INK)
        labels = [_label(curve, results) for curve in drawn]
        figure.legend(
            handles=left.get_lines()[: len(drawn)], labels=labels, loc="outside lower left",
            frameon=False, labelcolor=INK, fontsize=9, ncols=2 if len(labels) > 4 else 1,
        )  # fmt: skip
        more = f", best {_MOST} of {len(others)} and the base" if left_out > 0 else ""
        band = "mean and 95 % interval" if results.grid.seeds > 1 else "one seed"
        figure.suptitle(
            printable_line(f"{results.grid.title}: {heading(results)}, {band}{more}"),
            x=0.01, ha="left", color=INK, fontsize=12, fontweight="bold",
        )  # fmt: skip

    width = 10.0 if paired else 6.0
    return png(draw, (width, 4.3 + 0.2 * (len(drawn) + 1)))


def _band(axes: "Axes", x: Sequence[float], values: Sequence[Estimate], color: str) -> None:
    means = [value.mean for value in values]
    marker = "o" if len(x) <= 15 else None
    axes.plot(x, means, color=color, linewidth=1.7, marker=marker, markersize=3.5)
    if all(value.half is not None for value in values):
        low = [value.mean - (value.half or 0) for value in values]
        high = [value.mean + (value.half or 0) for value in values]
        axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)


def _limits(axes: "Axes", curves: Sequence[Sequence[Estimate]]) -> None:
    """Show all means, and bands as far as means stay distinguishable."""
    means = [value.mean for curve in curves for value in curve]
    ends = [
        value.mean + sign * (value.half or 0) for c in curves for value in c for sign in (-1, 1)
    ]
    low, high = min(means), max(means)
    reach = max(high - low, 1e-3)
    low, high = max(min(ends), low - 0.4 * reach), min(max(ends), high + 0.4 * reach)
    axes.set_ylim(low - 0.04 * reach, high + 0.04 * reach)


def _label(curve: CellCurve, results: GridResults) -> str:
    base = " (base)" if curve.cell is results.base else ""
    return printable_line(f"{_short(curve.cell.name)}{base}")


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:45]}..."
