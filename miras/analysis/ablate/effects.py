"""The main effect of each level of each axis, by an additive model.

Of cells c and seeds s, the metric is modelled as

    y[c, s] = mu_s + sum_axes effect_s[axis, level of c],    sum_levels effect_s[axis, level] = 0

and fitted by least squares to each seed. With all combinations of levels, the effect of a level is
the mean of its cells minus the mean of all.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from miras.analysis.ablate.estimate import Estimate, estimate
from miras.analysis.ablate.grid import AblationGrid

_ROUNDING = 1e-9  # float64 rounding in a design matrix of zeros and ones


class Effect(NamedTuple):
    """The main effect of one level of an axis.

    Attributes:
        axis: the field.
        level: its value.
        cells: number of complete cells with the level.
        effect: difference to the grand mean, with the other axes equal; None if it is not
            estimable.
    """

    axis: str
    level: str
    cells: int
    effect: Estimate | None


class AdditiveFit(NamedTuple):
    """The additive model of a grid; its attributes are those of `results.GridResults`."""

    effects: tuple[Effect, ...]
    grand_mean: float | None
    explained: float | None


def fit_effects(grid: AblationGrid, levels: list[dict[str, str]], table: np.ndarray) -> AdditiveFit:
    """Fit the additive model to each seed; effects sum to 0 over the levels of an axis.

    Args:
        grid: the grid.
        levels: of each complete cell.
        table: the metric, [complete cells, seeds].
    """
    counts = {
        (axis, value): sum(cell[axis] == value for cell in levels)
        for axis, values in grid.axes.items()
        for value in values
    }
    if not levels:
        return AdditiveFit(tuple(Effect(*key, 0, None) for key in counts), None, None)
    codes = _codes(grid, counts)
    width = 1 + sum(len(next(iter(code.values()))) for code in codes.values())
    design = np.array([_design_row(codes, cell) for cell in levels])
    inverse = np.linalg.pinv(design)
    known = inverse @ design  # projection onto the estimable contrasts
    solution = inverse @ table
    effects, start = [], 1
    for axis, code in codes.items():
        size = len(next(iter(code.values())))
        for value in grid.axes[axis]:
            found = None
            if value in code:
                contrast = np.zeros(width)
                contrast[start : start + size] = code[value]
                if size and np.abs(contrast @ known - contrast).max() < _ROUNDING:
                    found = estimate(contrast @ solution)
            effects.append(Effect(axis, value, counts[axis, value], found))
        start += size
    constant = np.eye(width)[0]
    estimable = np.abs(constant @ known - constant).max() < _ROUNDING
    return AdditiveFit(
        tuple(effects),
        float((constant @ solution).mean()) if estimable else None,
        _explained(design, table.mean(axis=1)),
    )


def _codes(
    grid: AblationGrid, counts: Mapping[tuple[str, str], int]
) -> dict[str, dict[str, np.ndarray]]:
    """Each level that has a cell as a vector; the vectors of an axis sum to 0."""
    codes = {}
    for axis, values in grid.axes.items():
        present = [value for value in values if counts[axis, value]]
        rows = np.vstack([np.eye(len(present) - 1), -np.ones(len(present) - 1)])
        codes[axis] = dict(zip(present, rows))
    return codes


def _design_row(
    codes: Mapping[str, Mapping[str, np.ndarray]], cell: Mapping[str, str]
) -> np.ndarray:
    return np.concatenate([[1.0], *(code[cell[axis]] for axis, code in codes.items())])


def _explained(design: np.ndarray, means: np.ndarray) -> float | None:
    total = float(((means - means.mean()) ** 2).sum())
    if total == 0 or len(means) <= np.linalg.matrix_rank(design):
        return None
    left = means - design @ np.linalg.lstsq(design, means, rcond=None)[0]
    return 1 - float((left**2).sum()) / total
