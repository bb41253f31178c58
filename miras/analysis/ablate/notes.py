"""What the tables of a grid say and do not say, in sentences."""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from miras.analysis.ablate.grid import AblationGrid
from miras.analysis.ablate.paired import ALPHA, POWER, detectable
from miras.analysis.ablate.results import GridResults

if TYPE_CHECKING:
    from miras.data.config import BaselineResult, DataConfig

NONE = "–"  # an entry without a value


def notes(results: GridResults) -> Iterator[str]:
    """Explanations of the tables, and warnings."""
    grid = results.grid
    better = "lower" if results.metric.less_is_better else "higher"
    interval = (
        "; ± is the half-width of the 95 % confidence interval (Student's t over the seeds)"
        if grid.seeds > 1
        else ""
    )
    yield f"Held-out {results.metric.name}, {better} is better{interval}."
    if len(grid.cells) > 1:
        yield from _differences(results)
    yield from _texts(grid)
    yield from _baselines(results)
    if results.effects:
        yield from _effects(results)


def _differences(results: GridResults) -> Iterator[str]:
    grid = results.grid
    if grid.without_preset:
        yield (
            f"Warning: no cell is the preset {grid.title}, so differences are to the first cell, "
            f"{results.base.name}. Add the preset's own values to the axes to compare with it."
        )
    if grid.seeds == 1:
        yield (
            "Nothing can be said of differences between cells that have one seed: another seed may "
            "change each by as much. Give --seeds 3 or more."
        )
        return
    found = [row.difference for row in results.rows if row.difference is not None]
    compared = sum(d.holm is not None for d in found)
    if not compared:
        return
    better = "negative" if results.metric.less_is_better else "positive"
    yield (
        f"Difference to base: the metric minus that of {results.base.name} with the same seed, "
        f"averaged over the seeds that both have; {better} is better. p: of the two-sided t test "
        f"of the differences, corrected for {count(compared, 'cell')} by Holm's method; a "
        f"difference is significant if it is at most {ALPHA}."
    )
    if results.spread:  # 0 if runs are the same to all digits
        yield _power(results, results.spread, compared)


def _power(results: GridResults, spread: float, compared: int) -> str:
    """What differences the seeds can see."""
    seeds, name = results.grid.seeds, results.metric.name
    smallest = detectable(spread, seeds)
    many = ""
    if compared > 1:
        first = detectable(spread, seeds, ALPHA / compared)
        many = f"; as the only one of {compared} cells under the correction, {first:.2g}"
    return (
        f"Differences vary over the seeds with a standard deviation of {spread:.2g}. With "
        f"{seeds} seeds, a true difference of {smallest:.2g} {name} is found with a probability "
        f"of {100 * POWER:g} % (level {ALPHA}{many}); smaller ones are likely to be missed."
    )


def _effects(results: GridResults) -> Iterator[str]:
    grid = results.grid
    sign = "Negative" if results.metric.less_is_better else "Positive"
    if results.balanced:
        method = "the mean of the cells with that level, minus the mean of all cells"
    else:
        every = " × ".join(str(len(values)) for values in grid.axes.values())
        method = (
            "the design is unbalanced, so effects are those of an additive model, fitted by least "
            f"squares to the {count(results.complete, 'complete cell')} of {every} combinations; "
            "they assume that axes do not interact"
        )
    yield f"Main effects: {method}. {sign} is better."
    if any(effect.effect is None for effect in results.effects):
        yield (
            f"{NONE}: not estimable, since no complete cell has the level, or every such cell has "
            "the same level of another axis."
        )
    if results.explained is not None:
        yield (
            f"Main effects explain {results.explained:.0%} of the variance between cells; the rest "
            "is interaction between axes, and noise."
        )


def _baselines(results: GridResults) -> Iterator[str]:
    """The baselines of each data that cells are trained on."""
    for data in dict.fromkeys(cell.config.data for cell in results.grid.cells):
        found = [
            f"{reference.name} {reference.scores[results.metric.field]:.4f}"
            for reference in _references(data)
            if results.metric.field in reference.scores
        ]
        if found:
            yield f"Baselines, {results.metric.name}: {'; '.join(found)}."


@functools.lru_cache(maxsize=32)
def _references(data: "DataConfig") -> "list[BaselineResult]":
    return [] if data.task is None else data.task.references(data)


def _texts(grid: AblationGrid) -> Iterator[str]:
    """A note if cells were not evaluated on the same data."""
    groups: dict[str, list[str]] = {}
    for cell in grid.cells:
        if cell.held_out is not None:
            groups.setdefault(cell.held_out, []).append(cell.name)
    if len(groups) > 1:
        some = "; ".join(f"{names[0]} ({count(len(names), 'cell')})" for names in groups.values())
        yield (
            f"Warning: cells are evaluated on {len(groups)} different samples of held-out data "
            f"({some}), so that their differences are also those of the data. The length of rows, "
            "the rows of a batch, eval_batches, the source and the tokenizer must be the same."
        )


def count(number: int, what: str) -> str:
    """A number of things, as in "3 seeds"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
