"""Draws docs/assets/update.svg: one chunk of the update, token by token.

Command:   python docs/figures/update.py
"""

import pathlib

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

OUT = pathlib.Path(__file__).parents[1] / "assets" / "update.svg"
TOKENS = {"r+1": 3.9, "r+2": 6.5, "r+C": 9.9}  # and the x of each token's column
WIDTH, HEIGHT = 2.3, 0.62
BEFORE, AFTER = 1.75, 12.1  # the x of the state before the chunk, and of the one after it
EDGES = (2.5, 11.35)
INK, PALE, SNAPSHOT = "#26323f", "#8a97a5", "#c96f12"
# row: (y, what it is, the axis that chooses it, face colour, text in a box)
ROWS = {
    "x": (6.0, "token", "", "#eef1f4", r"$k_{%s},\ v_{%s},\ q_{%s}$"),
    "g": (
        4.9,
        "gradient",
        "memory, attentional bias",
        "#fde3cf",
        r"$g_{%s}=\nabla\ell(W_r;\,k_{%s},v_{%s})$",
    ),
    "S": (3.8, "momentum", "algorithm", "#d9ead3", r"$S_{%s}$"),
    "A": (2.7, "dual state", "retention", "#d6e4f5", r"$A_{%s}$"),
    "W": (1.6, "weights", "retention", "#d6e4f5", r"$W_{%s}=\mathrm{link}(A_{%s})$"),
    "y": (0.5, "answer", "memory", "#e9dcf2", r"$y_{%s}=M(W_{%s},q_{%s})$"),
}


def main() -> None:
    """Draw and write the figure."""
    with rc_context({"mathtext.fontset": "stix", "svg.hashsalt": "miras", "font.size": 10}):
        figure = Figure(figsize=(10.4, 5.2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-1.05, 12.75), ylim=(-0.35, 6.75))
        axes.set_axis_off()
        _labels(axes)
        _tokens(axes)
        _carried(axes)
        figure.savefig(OUT, metadata={"Date": None})


def _labels(axes: Axes) -> None:
    for y, what, axis, _, _ in ROWS.values():
        axes.text(-0.95, y + 0.1 * bool(axis), what, va="center", color=INK, fontsize=11)
        axes.text(-0.95, y - 0.19, axis, va="center", color=PALE, fontsize=8)


def _tokens(axes: Axes) -> None:
    for token, x in TOKENS.items():
        for y, _, _, face, text in ROWS.values():
            _box(axes, x, y, face, text.replace("%s", token))
        for above, below in zip("xgSAW", "gSAWy", strict=True):
            _arrow(axes, (x, ROWS[above][0] - HEIGHT / 2), (x, ROWS[below][0] + HEIGHT / 2))
    second, last = TOKENS["r+2"], TOKENS["r+C"]
    for y, *_ in ROWS.values():
        axes.text((second + last) / 2, y, "$\\cdots$", ha="center", va="center", fontsize=13)


def _carried(axes: Axes) -> None:
    """The state before the chunk, what it becomes from token to token, and the state after it."""
    half, middle = WIDTH / 2, (TOKENS["r+2"] + TOKENS["r+C"]) / 2
    first, second, last = TOKENS.values()
    spans = [
        (BEFORE + 0.3, first - half), (first + half, second - half),
        (second + half, middle - 0.25), (middle + 0.25, last - half), (last + half, AFTER - 0.45),
    ]  # fmt: skip
    for row in "SA":
        y = ROWS[row][0]
        for x, index in ((BEFORE, "r"), (AFTER, "r+C")):
            axes.text(x, y, f"${row}_{{{index}}}$", ha="center", va="center", fontsize=13)
        for start, end in spans:
            _arrow(axes, (start, y), (end, y))
    y = ROWS["g"][0]
    for x, index, side in ((BEFORE, "r", -1), (AFTER, "r+C", 1)):
        axes.text(x, y, f"$W_{{{index}}}$", ha="center", va="center", fontsize=13, color=SNAPSHOT)
        start, end = (x + 0.25 * side, ROWS["A"][0] + 0.2), (x + 0.25 * side, y - 0.2)
        _arrow(axes, start, end, connection=f"arc3,rad={0.35 * side}")
    _snapshot(axes, y)
    for x, when in ((BEFORE, "before"), (AFTER, "after")):
        label = f"{when}\nthe chunk"
        axes.text(x, ROWS["x"][0], label, ha="center", va="center", color=PALE, fontsize=9)
    for x in EDGES:
        axes.plot([x, x], [-0.1, 6.5], color=PALE, linestyle=(0, (4, 4)), linewidth=0.8)


def _snapshot(axes: Axes, y: float) -> None:
    """The rail by which every gradient of the chunk gets the same weights."""
    rail, aside = y + HEIGHT / 2 + 0.16, 0.5
    style = {"color": SNAPSHOT, "linewidth": 1.4}
    axes.plot([BEFORE, BEFORE], [y + 0.28, rail], **style)
    axes.plot([BEFORE, TOKENS["r+C"] - aside], [rail, rail], **style)
    for x in TOKENS.values():
        _arrow(axes, (x - aside, rail), (x - aside, y + HEIGHT / 2), color=SNAPSHOT)


def _box(axes: Axes, x: float, y: float, face: str, text: str) -> None:
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    box = "round,pad=0,rounding_size=0.12"
    patch = FancyBboxPatch(
        corner, WIDTH, HEIGHT, boxstyle=box, facecolor=face, edgecolor=INK, linewidth=0.7, zorder=2
    )
    axes.add_patch(patch)
    axes.text(x, y, text, ha="center", va="center", color=INK, fontsize=10, zorder=3)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = INK,
    connection: str = "arc3",
) -> None:
    arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=arrow | {"connectionstyle": connection}, zorder=1)


if __name__ == "__main__":
    main()
