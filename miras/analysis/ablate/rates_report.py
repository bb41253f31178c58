"""The best rates of cells: table, notes, CSV file and figure."""

import csv
import functools
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from miras.analysis.ablate.best_rates import Choice, is_finite, spread_of
from miras.analysis.ablate.columns import Column
from miras.analysis.ablate.notes import NONE
from miras.analysis.ablate.results import GridResults
from miras.analysis.compare.figure import COLORS
from miras.runtime.figures import INK, png, printable_line, style_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def rate_columns(results: GridResults) -> list[Column]:
    """The columns of the table whose rows are the cells' choices."""
    columns = [Column("cell", False, lambda choice: choice.group)]
    for path in results.grid.swept:
        columns.append(Column(f"best {path}", True, functools.partial(_best, path=path)))
    columns.append(Column(results.metric.name, True, _score))
    columns.append(Column("rates done", True, _done))
    columns.append(Column("", False, _warning))
    return columns


def rate_notes(results: GridResults) -> Iterator[str]:
    """What the choice of rates means."""
    yield (
        f"Each cell is compared at the rate with the best mean held-out {results.metric.name} over "
        "all seeds; the same held-out data chooses the rate and compares the cells, so values are "
        "slightly optimistic, for all cells alike. A rate at which a seed diverged is not chosen."
    )
    at_edges = [choice.group for choice in results.choices if choice.edges]
    if at_edges:
        yield (
            f"Warning: the best rate is at an edge of the sweep in {'; '.join(at_edges)}. A better "
            "one may lie outside: widen the sweep."
        )


def rates_csv(results: GridResults) -> str:
    """Every cell at every rate."""
    paths = list(results.grid.swept)
    lines: list[list[Any]] = [
        ["cell", *(x for path in paths for x in (path, f"{path}_given")), results.metric.field,
         "half_interval", "seeds_done", "seeds", "best", "edge"],
    ]  # fmt: skip
    for choice in results.choices:
        for candidate in choice.candidates:
            rates = {rate.path: rate for rate in candidate.cell.rates}
            score, best = candidate.score, candidate is choice.best
            values = (
                x
                for path in paths
                for x in ((rates[path].value, rates[path].text) if path in rates else (None, None))
            )
            edge = " ".join(f"{path}:{edge}" for path, edge in choice.edges.items())
            lines.append(
                [
                    *(choice.group, *values),
                    *((None, None) if score is None else (score.mean, score.half)),
                    *(candidate.seeds, results.grid.seeds, int(best), edge if best else ""),
                ]
            )
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def plot_rates(results: GridResults) -> bytes:
    """Draw the metric over each swept rate as a PNG, one curve for each cell."""
    drawn = results.choices[: 2 * len(COLORS)]
    paths = list(results.grid.swept)

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(paths), squeeze=False, sharey=True)[0]
        for axes, path in zip(panels, paths):
            for n, choice in enumerate(drawn):
                _curve(axes, choice, path, n)
            _log_ticks(axes)
            style_curves(axes, path, size=11, margin=0.04)
            axes.set_xlabel("rate" if len(paths) == 1 else "rate, the other at its best", color=INK)
        panels[0].set_ylabel(f"held-out {results.metric.name}", color=INK)
        labels = [printable_line(choice.group)[:60] for choice in drawn]
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=_color(n), linestyle=_dash(n)) for n in range(len(drawn))]
        figure.legend(
            handles=handles, labels=labels, loc="outside lower left", frameon=False,
            labelcolor=INK, fontsize=9, ncols=2 if len(labels) > 4 else 1,
        )  # fmt: skip
        band = "mean and 95 % interval" if results.grid.seeds > 1 else "one seed"
        figure.suptitle(
            f"{printable_line(results.grid.title)}: {band}; the best rate of each cell is ringed",
            x=0.01, ha="left", color=INK, fontsize=12, fontweight="bold",
        )  # fmt: skip

    return png(draw, (1.5 + 5 * len(paths), 4.3 + 0.2 * (len(drawn) + 1)))


def _log_ticks(axes: "Axes") -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 times powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _curve(axes: "Axes", choice: Choice, path: str, n: int) -> None:
    points = [(rate, c) for rate, c in spread_of(choice, path) if is_finite(c)]
    if not points:
        return
    scores = [c.score for _, c in points if c.score is not None]
    rates = [rate for rate, _ in points]
    axes.plot(rates, [s.mean for s in scores], color=_color(n), linestyle=_dash(n), marker="o",
              markersize=4, linewidth=1.7)  # fmt: skip
    if len(points) > 1 and all(s.half is not None for s in scores):
        low, high = ([s.mean + sign * (s.half or 0) for s in scores] for sign in (-1, 1))
        axes.fill_between(rates, low, high, color=_color(n), alpha=0.12, linewidth=0)
    for rate, candidate in points:
        if candidate is choice.best and candidate.score is not None:
            axes.plot([rate], [candidate.score.mean], marker="o", markersize=10, linestyle="none",
                      markerfacecolor="none", markeredgecolor=_color(n))  # fmt: skip


def _color(n: int) -> str:
    return COLORS[n % len(COLORS)]


def _dash(n: int) -> Literal["-", "--"]:
    return "-" if n < len(COLORS) else "--"


def _best(choice: Choice, path: str) -> str:
    if choice.best is None:
        return NONE
    rate = next((rate for rate in choice.best.cell.rates if rate.path == path), None)
    if rate is None:
        return NONE
    return f"{rate.value:.3g} ({rate.text})" if rate.text.endswith("x") else f"{rate.value:.3g}"


def _score(choice: Choice) -> str:
    score = None if choice.best is None else choice.best.score
    if score is None:
        return NONE
    return f"{score.mean:.4f}" + ("" if score.half is None else f" ± {score.half:.4f}")


def _done(choice: Choice) -> str:
    return f"{sum(x.complete for x in choice.candidates)} of {len(choice.candidates)}"


def _warning(choice: Choice) -> str:
    return ", ".join(f"{edge} {path} of the sweep" for path, edge in choice.edges.items())
