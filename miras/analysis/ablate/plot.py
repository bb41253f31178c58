"""The figure of a grid: the main effects of each axis, and each cell's difference to the base."""

from typing import TYPE_CHECKING, NamedTuple

from miras.analysis.ablate.effects import Effect
from miras.analysis.ablate.estimate import Estimate
from miras.analysis.ablate.report import heading
from miras.analysis.ablate.results import GridResults, Row
from miras.runtime.figures import png, printable_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_INK, _FAINT, _GRID = "#333333", "#999999", "#e4e4e4"
_BETTER, _WORSE = "#c8553d", "#5b86b4"
_MAX_CELLS = 40
_ROW, _PANEL, _FRAME = 0.27, 0.55, 1.35  # inches: per row, per panel, per figure


def plot(results: GridResults) -> bytes:
    """Draw the results as a PNG."""
    rows = [row for row in results.rows if row.score is not None][:_MAX_CELLS]
    axes_of = _by_axis(results)
    left = sum(_ROW * len(effects) + _PANEL for effects in axes_of.values())
    right = _ROW * len(rows) + _PANEL
    height = max(2.4, _FRAME + max(left, right))
    labels = max((len(_label(row)) for row in rows), default=0)
    wide = min(5.4 + 0.06 * labels, 9.0)
    narrow = 5.2 if axes_of else 0

    def draw(figure: "Figure") -> None:
        if axes_of:
            halves = figure.subfigures(
                1, 2, width_ratios=[narrow, wide], wspace=0.03, squeeze=False
            )
            first, second = halves[0]
            _effects(first, axes_of, results, below=height - _FRAME - left)
        else:
            second = figure
        _cells(second, rows, results, below=height - _FRAME - right)
        figure.suptitle(
            printable_line(f"Ablation of {results.grid.title}: {heading(results)}"),
            x=0.01, ha="left", color=_INK, fontsize=12, fontweight="bold",
        )  # fmt: skip

    return png(draw, (narrow + wide, height))


def _by_axis(results: GridResults) -> dict[str, list[Effect]]:
    found: dict[str, list[Effect]] = {}
    for effect in results.effects:
        found.setdefault(effect.axis, []).append(effect)
    return found


def _panels(figure: "Figure | SubFigure", sizes: list[int], below: float) -> "list[Axes]":
    """Panels with the given numbers of rows, stacked, and `below` inches of empty space below."""
    inches = [_ROW * size + _PANEL for size in sizes]
    grid = figure.add_gridspec(len(sizes) + 1, 1, height_ratios=[*inches, max(below, 1e-3)])
    return [figure.add_subplot(grid[n, 0]) for n in range(len(sizes))]


def _effects(
    figure: "SubFigure", axes_of: dict[str, list[Effect]], results: GridResults, below: float
) -> None:
    """One panel per axis, all with one scale, and each level's value on the right."""
    panels = _panels(figure, [len(effects) for effects in axes_of.values()], below)
    for axes, (name, effects) in zip(panels, axes_of.items()):
        for y, effect in enumerate(effects):
            if effect.effect is None:
                axes.text(0, y, "not estimable", color=_FAINT, fontsize=8, ha="center", va="center",
                          bbox={"color": "white", "pad": 1}, zorder=3)  # fmt: skip
                continue
            colour = _effect_colour(effect.effect)
            _interval(axes, effect.effect, y, colour)
            _value(axes, y, f"{effect.effect.mean:+.3f}".replace("-", "−"))
        axes.axvline(0, color=_FAINT, linewidth=1, zorder=1)
        _rows_of(axes, [effect.level for effect in effects])
        axes.set_title(
            printable_line(name), loc="left", color=_INK, fontsize=10, fontweight="bold", pad=4
        )
        axes.tick_params(labelbottom=axes is panels[-1])
    found = [effect.effect for effect in results.effects if effect.effect is not None]
    means = [abs(effect.mean) for effect in found]
    most = max(map(abs, _range([*means, *(-mean for mean in means), 0.0], found)))
    for axes, effects in zip(panels, axes_of.values()):
        axes.set_xlim(-most, most)
        _mark_cut(axes, [(effect.effect, _effect_colour(effect.effect)) if effect.effect else None
                         for effect in effects])  # fmt: skip
    better = "less" if results.metric.less_is_better else "more"
    model = "" if results.balanced else ", additive model"
    panels[-1].set_xlabel(
        f"main effect{model}\n{results.metric.name}, {better} is better", color=_INK
    )


def _cells(
    figure: "Figure | SubFigure", rows: list[Row], results: GridResults, below: float
) -> None:
    """The differences to the base, or the metric where there is nothing to compare."""
    (axes,) = _panels(figure, [len(rows)], below)
    marks = [_mark(row, results) for row in rows]
    for y, (row, mark) in enumerate(zip(rows, marks)):
        assert row.score is not None
        _value(axes, y, f"{row.score.mean:.3f}")
        if mark is None:
            continue
        seeds = mark.values if len(mark.values) > 1 else ()
        axes.plot(seeds, [y] * len(seeds), linestyle="none", marker="|", markersize=10,
                  color=mark.colour, alpha=0.8, zorder=2)  # fmt: skip
        _interval(axes, mark.estimate, y, mark.colour, hollow=row.rank is None)
    _rows_of(axes, [_label(row) for row in rows])
    known = [mark for mark in marks if mark is not None]
    values = [value for mark in known for value in (*mark.values, mark.estimate.mean)]
    if values:
        axes.set_xlim(*_range(values, [mark.estimate for mark in known]))
    _mark_cut(axes, [mark and (mark.estimate, mark.colour) for mark in marks])
    names = " · ".join(results.grid.axes)
    some = f", best {len(rows)} of {len(results.rows)}" if len(rows) < len(results.rows) else ""
    title = f"{names or 'held-out text'}{some}"
    axes.set_title(
        printable_line(title), loc="left", color=_INK, fontsize=10, fontweight="bold", pad=4
    )
    name = results.metric.name
    if _compares(results):
        axes.axvline(0, color=_INK, linewidth=1, zorder=1)
        key = "mean, 95 % interval and each seed; grey: not significant (Holm)"
        told = f"{name}, difference to {results.base.name}"[:70]
        axes.set_xlabel(f"{printable_line(told)}\n{key}", color=_INK)
    else:
        one = results.grid.seeds == 1
        key = "one seed each, no interval" if one else "mean, 95 % interval and each seed"
        axes.set_xlabel(f"held-out {name}\n{key}", color=_INK)


class _Mark(NamedTuple):
    """What is drawn of a cell: a mean with an interval, the value of each seed, and the colour."""

    estimate: Estimate
    values: tuple[float, ...]
    colour: str


def _compares(results: GridResults) -> bool:
    """Whether there are differences with intervals."""
    return any(row.difference is not None and row.difference.seeds > 1 for row in results.rows)


def _mark(row: Row, results: GridResults) -> _Mark | None:
    if not _compares(results):
        colour = _FAINT if row.rank is None else _BETTER if row.rank == 1 else _WORSE
        return None if row.score is None else _Mark(row.score, row.values, colour)
    if row.cell is results.base:
        return _Mark(Estimate(0.0, None), (), _INK)
    found = row.difference
    if found is None:
        return None
    worse = results.metric.gap(found.estimate.mean, 0.0) > 0
    colour = _FAINT if not found.significant else _WORSE if worse else _BETTER
    return _Mark(found.estimate, found.values, colour)


def _label(row: Row) -> str:
    seeds = "" if row.rank is not None else f"  ({len(row.values)} seeds done)"
    return (" · ".join(row.cell.levels.values()) or row.cell.name)[:60] + seeds


def _effect_colour(effect: Estimate) -> str:
    """Blue; grey if the interval contains 0."""
    return _FAINT if effect.half is not None and abs(effect.mean) <= effect.half else _WORSE


def _interval(axes: "Axes", found: Estimate, y: float, colour: str, hollow: bool = False) -> None:
    if found.half is not None:
        axes.plot(
            _ends(found), [y, y], color=colour, linewidth=2.2, solid_capstyle="round", zorder=3
        )
    axes.plot([found.mean], [y], marker="o", markersize=6.5, color=colour,
              markerfacecolor="white" if hollow else colour, zorder=4)  # fmt: skip


def _mark_cut(axes: "Axes", rows: list[tuple[Estimate, str] | None]) -> None:
    """An arrowhead at each edge that an interval crosses."""
    low, high = axes.get_xlim()
    for y, row in enumerate(rows):
        if row is None or row[0].half is None:
            continue
        first, last = _ends(row[0])
        for cut, edge, marker in ((first < low, low, 4), (last > high, high, 5)):  # carets
            if cut:
                axes.plot([edge], [y], marker=marker, markersize=6, color=row[1], clip_on=False,
                          linestyle="none", zorder=5)  # fmt: skip


def _value(axes: "Axes", y: float, text: str) -> None:
    """A number to the right of a row."""
    transform = axes.get_yaxis_transform()
    axes.text(1.02, y, text, color=_INK, fontsize=8.5, va="center", transform=transform)


def _range(values: list[float], found: list[Estimate]) -> tuple[float, float]:
    """The axis limits: all values, and intervals as far as values stay distinguishable."""
    low, high = min(values), max(values)
    reach = max(high - low, 1e-3)
    ends = [end for estimate in found for end in _ends(estimate)]
    low, high = max(min([low, *ends]), low - reach), min(max([high, *ends]), high + reach)
    margin = 0.06 * max(high - low, 1e-3)
    return low - margin, high + margin


def _ends(found: Estimate) -> tuple[float, float]:
    half = found.half or 0.0
    return found.mean - half, found.mean + half


def _rows_of(axes: "Axes", labels: list[str]) -> None:
    """Label the rows, from top to bottom."""
    from matplotlib.ticker import MaxNLocator

    axes.set_yticks(range(len(labels)), [printable_line(label) for label in labels], fontsize=8.5)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
