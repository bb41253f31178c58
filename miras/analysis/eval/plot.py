"""The heat map of an evaluation: recall or exact match by length and depth."""

import functools
from typing import TYPE_CHECKING

import numpy as np

from miras.analysis.eval.report import heading, tokens
from miras.analysis.eval.results import TaskResults
from miras.runtime.figures import png, printable_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#333333"
_SCALE = ("#c8553d", "#f3e3c3", "#5b86b4")


def heat_map(results: TaskResults) -> bytes:
    """Draw the share of each cell as a PNG: lengths in columns, depths in rows."""
    columns, rows = len(results.lengths), len(results.depths)
    size = (max(4.6, 2.4 + 0.8 * columns), max(2.6, 1.6 + 0.5 * rows))
    return png(functools.partial(_draw, results), size)


def _draw(results: TaskResults, figure: "Figure") -> None:
    from matplotlib.colors import LinearSegmentedColormap

    lengths, depths = results.lengths, results.depths
    shares = np.array(
        [[results.cells[length, depth].shown for length in lengths] for depth in depths]
    )
    scale = LinearSegmentedColormap.from_list("recall", _SCALE)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=scale, vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            ink = "white" if abs(share - 0.5) > 0.35 else _INK
            axes.text(x, y, f"{share:.2f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(lengths)), [tokens(length) for length in lengths])
    axes.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    axes.set_xticks(np.arange(1, len(lengths)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(depths)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0, colors=_INK)
    axes.set_xlabel("length, tokens", color=_INK)
    axes.set_ylabel("depth: 0 start, 1 end", color=_INK)
    axes.set_title(
        printable_line(heading(results)), loc="left", color=_INK, fontsize=10, fontweight="bold"
    )
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)  # pyright: ignore
    bar.ax.tick_params(length=0, colors=_INK)
