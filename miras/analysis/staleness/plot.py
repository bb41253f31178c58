"""The figure of a measurement: distance to the online memory and bits per byte, by chunk."""

import functools
import math
import textwrap
from typing import TYPE_CHECKING, NamedTuple

from miras.analysis.staleness.measure import SettingResult
from miras.analysis.staleness.plan import ONLINE, Setting
from miras.analysis.staleness.report import StalenessReport, heading
from miras.runtime.figures import png, printable_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE_WIDTH = 140  # characters per line
_INK, _FAINT = "#333333", "#999999"
_COLOURS = ("#c8553d", "#dd9c3b", "#3f9c8f", "#3b6fb6", "#7a5195")
_MARKERS = "os^Dv"
_EXACT = {"color": _INK, "marker": "x", "linestyle": "--"}


class _Line(NamedTuple):
    """A column of the grid as a line."""

    name: str
    style: dict
    results: list[tuple[int, SettingResult]]


def plot(report: StalenessReport) -> bytes:
    """Draw a report as a PNG."""
    return png(functools.partial(_draw, report), (10, 4.8))


def _draw(report: StalenessReport, figure: "Figure") -> None:
    left, right = figure.subplots(1, 2)
    lines = list(_lines(report))
    _distances(left, report, lines)
    _bits(right, report, lines)
    for axes in (left, right):
        _style_axes(axes, report)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        labelcolor=_INK,
    )
    # Wrapped here, since matplotlib's wrapping parses `$` as mathematics.
    title = textwrap.fill(printable_line(heading(report)), _TITLE_WIDTH)
    figure.suptitle(title, x=0.01, ha="left", color=_INK, fontsize=9.5)


def _lines(report: StalenessReport):
    """A line for each column; settings that were not measured equal the online one."""
    for n, (name, setting) in enumerate(report.columns()):
        style = {"color": _COLOURS[n % 5], "marker": _MARKERS[n % 5]}
        style = {**(_EXACT if name == "exact" else style), "markersize": 5, "linewidth": 1.8}
        results = [
            (c, report.results.get(setting(c), report.results[ONLINE])) for c in report.plan.chunks
        ]
        yield _Line(name, style, results)


def _distances(axes: "Axes", report: StalenessReport, lines: list[_Line]) -> None:
    from matplotlib.ticker import LogFormatter

    drawn = [d for line in lines for _, cell in line.results if _drawable(d := cell.distance)]
    for line in lines:
        points = [(c, cell) for c, cell in line.results if _drawable(cell.distance)]
        if not points:
            continue
        axes.plot([c for c, _ in points], [cell.distance for _, cell in points], **line.style)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1, 0.4)))
    low, high, floor = min(drawn, default=1e-7), max(drawn, default=1e-4), report.rounding()
    axes.set_ylim(low / 3, max(high * 2, low * 30))
    across, up = axes.get_yaxis_transform(), axes.get_xaxis_transform()
    if floor > low / 2:
        axes.axhspan(low / 10, floor, color="#eeeeee", zorder=0)
        axes.text(
            0.98, floor / 1.15, "float32 rounding", transform=across, color=_FAINT, fontsize=8,
            ha="right", va="top",
        )  # fmt: skip
    if 1 in report.plan.chunks:
        axes.text(1, 0.02, "0", transform=up, color=_FAINT, ha="center", va="bottom")
    if not drawn:
        finite = all(math.isfinite(cell.distance) for line in lines for _, cell in line.results)
        text = "0 throughout" if finite else "diverges"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, color=_FAINT, ha="center")
    own = report.results[report.plan.own]
    if _drawable(own.distance):
        _ring(axes, own.setting, own.distance)
    axes.set_title("Distance to the online memory", loc="left", color=_INK, fontsize=11)
    axes.set_ylabel("relative, mean over layers", color=_INK)


def _bits(axes: "Axes", report: StalenessReport, lines: list[_Line]) -> None:
    for line in lines:
        points = [(c, cell.bits_per_byte) for c, cell in line.results]
        points = [(c, bits) for c, bits in points if math.isfinite(bits)]
        axes.plot(*(zip(*points) if points else ([], [])), **line.style, label=line.name)
    online, own = report.results[ONLINE].bits_per_byte, report.results[report.plan.own]
    if math.isfinite(online):
        axes.axhline(online, color=_FAINT, linewidth=1, linestyle=":", label="online", zorder=1)
    if math.isfinite(own.bits_per_byte):
        _ring(axes, own.setting, own.bits_per_byte, label="the model's setting")
    axes.set_title("The whole model on held-out text", loc="left", color=_INK, fontsize=11)
    axes.set_ylabel("bits per byte", color=_INK)
    axes.ticklabel_format(axis="y", useOffset=False)


def _drawable(distance: float) -> bool:
    """Whether a logarithmic axis can show it."""
    return math.isfinite(distance) and distance > 0


def _ring(axes: "Axes", setting: Setting, height: float, label: str = "") -> None:
    axes.plot(
        [setting.chunk], [height], linestyle="none", marker="o", markersize=11,
        markerfacecolor="none", markeredgecolor=_INK, markeredgewidth=1.2, zorder=4,
        label=label or "_",
    )  # fmt: skip


def _style_axes(axes: "Axes", report: StalenessReport) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    chunks = sorted({*report.plan.chunks, report.plan.own.chunk})
    axes.set_xscale("log", base=2)
    axes.set_xlim(chunks[0] / 1.3, chunks[-1] * 1.3)
    axes.xaxis.set_major_locator(FixedLocator(report.plan.chunks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.set_xlabel("chunk", color=_INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=3)
    axes.tick_params(which="minor", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
