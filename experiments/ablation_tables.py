"""Tables and the figure of `experiments.ablations`, from the lines of its runs."""

import functools
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.ablation_cells import AXES, OWN, PRESETS, READ, READINGS, Axis, Reading, cells_of
from miras.analysis.ablate.paired import (
    ALPHA,
    Difference,
    corrected,
    detectable,
    difference,
    pooled_spread,
)
from miras.runtime.figures import INK, png, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = list[dict[str, Any]]
NONE = "–"
COLOURS = {
    "agrees": "#2a7f4f",
    "disagrees": "#b3402e",
    "better": "#3b6ea8",
    "worse": "#3b6ea8",
    "within noise": "#999999",
}


class Compared(NamedTuple):
    """The cells of a preset beside it.

    Attributes:
        values: bits per byte of each cell by seed; NaN where a run is missing or diverged.
        differences: to the preset, p corrected for all cells of the preset.
    """

    values: dict[str, np.ndarray]
    differences: dict[str, Difference | None]


def compare(lines: Lines, preset: str, names: Iterable[str]) -> Compared:
    """The paired differences of cells to their preset, corrected for all of them."""
    own = [line for line in lines if line["preset"] == preset and line["read"] is None]
    seeds = sorted({line["seed"] for line in own})
    every = {name: _values(own, name, seeds) for name in (OWN, *names)}
    compared = corrected([difference(every[name], every[OWN]) for name in names])
    return Compared(every, dict(zip(names, compared, strict=True)))


def _values(lines: Lines, cell: str, seeds: list[int]) -> np.ndarray:
    """Bits per byte of a cell by seed; NaN where there are none."""
    found = {line["seed"]: line["bits_per_byte"] for line in lines if line["cell"] == cell}
    return np.array([found.get(seed, np.nan) for seed in seeds], np.float64)


def verdict(found: Difference | None, direction: int) -> str:
    """What the difference says of a direction: only what is significant agrees or disagrees."""
    if found is None:
        return NONE
    if not found.significant:
        return "within noise"
    mean = found.estimate.mean
    if direction == 0:
        return "worse" if mean > 0 else "better"
    return "agrees" if mean * direction > 0 else "disagrees"


def markdown(lines: Lines) -> str:
    """A table of each axis that has runs, one of the readings at other chunks, and what seen."""
    found = {preset: _compared(lines, preset) for preset in _measured(lines)}
    parts = [_table(axis, found[axis.preset], lines) for axis in AXES if axis.preset in found]
    if READ in found:
        parts.append(_readings(lines))
    parts.append("\n".join(_power(preset, result) for preset, result in found.items()))
    return "\n\n".join(parts)


def _measured(lines: Lines) -> list[str]:
    return [preset for preset in PRESETS if any(line["preset"] == preset for line in lines)]


def _compared(lines: Lines, preset: str) -> Compared:
    return compare(lines, preset, [cell.name for cell in cells_of(preset)])


def _table(axis: Axis, found: Compared, lines: Lines) -> str:
    rates = {x["cell"]: f"{x['lr']:.3g}" for x in lines if x["preset"] == axis.preset}
    rows = [
        _head(axis.title, "inner rate", "difference to the preset", "the paper"),
        f"| {axis.own} (preset) | {rates.get(OWN, NONE)} | {_bits(found.values[OWN])} "
        f"| {NONE} | {NONE} | {NONE} | {NONE} |",
    ]
    for cell in axis.cells:
        result = found.differences[cell.name]
        rows.append(
            f"| {cell.name} | {rates.get(cell.name, NONE)} | {_bits(found.values[cell.name])} "
            f"| {_difference(result)} | {_p(result)} | {cell.paper} "
            f"| {verdict(result, cell.direction)} |"
        )
    return "\n".join(rows)


def _head(title: str, second: str, third: str, paper: str) -> str:
    names = (title, second, "bits per byte", third, "p (Holm)", paper, "here")
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def _readings(lines: Lines) -> str:
    """Models read in other ways, against the same models read as they were trained."""
    lines = [line for line in lines if line["preset"] == READ]
    seeds = sorted({line["seed"] for line in lines})

    def values(reading: Reading, at: str | None) -> np.ndarray:
        return _values([line for line in lines if line["read"] == at], reading.cell, seeds)

    pairs = [(values(reading, reading.name), values(reading, None)) for reading in READINGS]
    same = [difference(*pair) for pair in pairs]
    rows = [
        "| model of Yaad | read | bits per byte | difference to the same model as trained "
        "| p (Holm) | the paper | here |",
        "|---" * 7 + "|",
    ]
    for reading, (found, _), result in zip(READINGS, pairs, corrected(same), strict=True):
        rows.append(
            f"| {reading.cell} | {reading.name} | {_bits(found)} | {_difference(result)} "
            f"| {_p(result)} | {reading.paper} | {verdict(result, reading.direction)} |"
        )
    return "\n".join(rows)


def _bits(values: np.ndarray) -> str:
    """The mean; with the number of seeds where some are missing or diverged."""
    known = values[np.isfinite(values)]
    if not len(known):
        return NONE
    some = "" if len(known) == len(values) else f" ({len(known)} of {len(values)} seeds)"
    return f"{known.mean():.4f}{some}"


def _difference(found: Difference | None) -> str:
    if found is None:
        return NONE
    mean, half = found.estimate
    return f"{mean:+.4f}" if half is None else f"{mean:+.4f} ± {half:.4f}"


def _p(found: Difference | None) -> str:
    if found is None or found.holm is None:
        return NONE
    return f"{found.holm:.3f}" if found.holm >= 0.001 else "< 0.001"


def _power(preset: str, found: Compared) -> str:
    """The smallest differences that the seeds of a preset find in four of five experiments."""
    known = [x for x in found.differences.values() if x is not None and x.seeds > 1]
    spread = pooled_spread(known)
    if not spread:
        return f"- `{preset}`: no cell has two seeds yet."
    seeds = min(x.seeds for x in known)
    alone, first = (detectable(spread, seeds, ALPHA / count) for count in (1, len(known)))
    return (
        f"- `{preset}`: differences vary over seeds with a standard deviation of {spread:.4f}; "
        f"{seeds} seeds find a true difference of {alone:.3f} with a probability of 80 % if it is "
        f"the only comparison, and of {first:.3f} under the correction for {len(known)}."
    )


def plot(lines: Lines, path: pathlib.Path) -> None:
    """Differences of all cells to their presets, with intervals, each beside the paper's side."""
    shown = [axis for axis in AXES if axis.preset in _measured(lines)]
    if shown:
        write_figure(path, lambda: png(functools.partial(_draw, lines, shown), (8, 9)), print)


def _draw(lines: Lines, shown: list[Axis], figure: "Figure") -> None:
    heights = [len(axis.cells) + 0.6 for axis in shown]
    panels = figure.subplots(len(shown), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, axis in zip(panels, shown, strict=True):
        _panel(axes, axis, _compared(lines, axis.preset))
    figure.supxlabel(
        "difference to the preset in bits per byte (less is better): mean, 95 % interval, seeds\n"
        "arrow: the side that a paper reports; grey: within noise after Holm's correction; "
        "blue: not reported",
        color=INK,
        fontsize=10,
    )


def _panel(axes: "Axes", axis: Axis, found: Compared) -> None:
    for y, cell in enumerate(axis.cells):
        result = found.differences[cell.name]
        if result is None:
            continue
        colour = COLOURS[verdict(result, cell.direction)]
        mean, half = result.estimate
        axes.errorbar(mean, y, xerr=half, fmt="o", color=colour, capsize=3, markersize=5)
        axes.plot(result.values, [y] * result.seeds, "|", color=colour, markersize=10, alpha=0.7)
        if cell.direction:
            side, mark = (0.985, ">") if cell.direction > 0 else (0.015, "<")
            axes.plot(side, y, mark, color=INK, markersize=6, transform=axes.get_yaxis_transform())
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.set_yticks(range(len(axis.cells)), [cell.name for cell in axis.cells], color=INK)
    axes.set_ylim(len(axis.cells) - 0.4, -0.6)
    axes.set_title(
        f"{axis.title} (preset: {axis.own})", loc="left", color=INK, fontsize=10, fontweight="bold"
    )
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, length=3)
