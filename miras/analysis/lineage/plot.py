"""The figure of the tree: a row for each model, its paper's date across, colours for families."""

import functools
import textwrap
from typing import TYPE_CHECKING

from miras.analysis.lineage.tree import Relative
from miras.runtime.figures import png, printable_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _LINE = "#222222", "#777777", "#b5b5b5"
_COLOURS = (
    "#4c78a8", "#c8553d", "#3f9c8f", "#dd9c3b", "#7a5195", "#6b8e23",
    "#a05a2c", "#d6568c", "#222222", "#3bc4d9", "#c9b800", "#9aa5b1",
)  # fmt: skip
_STEP = 0.16  # years between a model and one that follows it in the same paper
_ROW = 0.23  # inches
_LONGEST = 66  # characters of the changes


def lineage_plot(tree: list[Relative]) -> bytes:
    """The tree of `lineage` as a PNG."""
    return png(functools.partial(_draw, tree), (13, 1.3 + _ROW * len(tree)))


def _draw(tree: list[Relative], figure: "Figure") -> None:
    axes = figure.add_subplot()
    at = _places(tree)
    families = list(dict.fromkeys(model.family for model in sorted(tree, key=lambda m: m.date)))
    colours = {family: _COLOURS[n % len(_COLOURS)] for n, family in enumerate(families)}
    for row, model in enumerate(tree):
        x, colour = at[model.preset.name], colours[model.family]
        if model.parent is not None:
            before = next(n for n, other in enumerate(tree) if other.preset.name == model.parent)
            start = at[model.parent]
            axes.plot([start, start, x], [before, row, row], color=_LINE, linewidth=1, zorder=1)
        axes.plot([x], [row], "o", color=colour, markersize=6, zorder=2)
        _name(axes, model, x, row)
    for family, colour in colours.items():
        label = textwrap.shorten(printable_line(family), 48, placeholder=" ...")
        axes.plot([], [], "o", color=colour, markersize=6, label=label)
    axes.legend(
        loc="center left", bbox_to_anchor=(0.04, 0.22), frameon=False, fontsize=9.5, labelcolor=_INK
    )
    axes.set_title(
        "Models and what leads from one to the next: below each, the later models whose configs "
        "are nearest",
        loc="left", color=_INK, fontsize=12, pad=12,
    )  # fmt: skip
    _style(axes, list(at.values()), len(tree))


def _name(axes: "Axes", model: Relative, x: float, row: int) -> None:
    """The name of a model, and after it what changed."""
    changes = printable_line(", ".join(model.changes))
    changes = textwrap.shorten(changes, _LONGEST, placeholder=" ...")
    name = axes.annotate(
        printable_line(model.preset.name), (x, row), xytext=(7, 0), textcoords="offset points",
        va="center", color=_INK, fontsize=9,
    )  # fmt: skip
    axes.annotate(
        changes, xy=(1, 0.5), xycoords=name, xytext=(7, 0), textcoords="offset points",
        va="center", color=_FAINT, fontsize=8,
    )  # fmt: skip


def _places(tree: list[Relative]) -> dict[str, float]:
    """The dates across, each a step after that of the model before."""
    at: dict[str, float] = {}
    for model in tree:
        after = model.date if model.parent is None else at[model.parent] + _STEP
        at[model.preset.name] = max(model.date, after)
    return at


def _style(axes: "Axes", places: list[float], rows: int) -> None:
    axes.set_ylim(rows - 0.3, -0.8)
    axes.set_xlim(min(places) - 0.3, max(places) + 3.4)
    axes.set_xticks(range(int(min(places)), int(max(places)) + 1))
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.grid(axis="x", color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=_FAINT, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
