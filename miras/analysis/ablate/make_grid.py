"""Builds a grid: the config of every point, at equal budgets and at every rate, each checked."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from miras.analysis.ablate import budget as budgets
from miras.analysis.ablate import held_out, rates
from miras.analysis.ablate.budget import Budget
from miras.analysis.ablate.grid import PRESET, AblationGrid, GridCell, IllegalCell, seeded
from miras.analysis.ablate.rates import RateSweep
from miras.analysis.ablate.trainable import TrainableCheck
from miras.config import config_hash, override, require, sweep
from miras.config.sweep import Point, Sweep
from miras.errors import ConfigError, UnknownPartError

if TYPE_CHECKING:
    from miras.train import RunConfig

    Check = Callable[[RunConfig], str | None]
    Make = Callable[[Point, tuple[str, ...]], RunConfig]
    """The config of a point under further assignments."""

_Cells = list[GridCell | IllegalCell]


def make_grid(
    points: Sweep,
    build: "Callable[..., RunConfig]",
    *,
    seeds: int,
    title: str = "ablation",
    check: "Check | None" = None,
    budget: Budget | None = None,
    swept: Sequence[RateSweep] = (),
) -> AblationGrid:
    """Build the config of every point, and separate the legal from the illegal ones.

    The base is the cell that `build` makes from the fields with the same value in all points.

    Args:
        points: from `miras.config.sweep`.
        build: makes a run's config from a point's overrides, as `functools.partial(override,
            base)` does.
        seeds: number of runs per cell, >= 1. Run i adds i to `train.seed` and `data.seed`, and
            keeps the content of the data, see `held_out`.
        title: of the grid.
        check: raises `ConfigError` for a config that can be built but not trained, and returns a
            digest of its held-out data or None; `TrainableCheck()` if not given.
        budget: what the cells have the same of as the base, see `budget`.
        swept: rates at which each cell is trained, from `rates.parse_rates`.

    Raises:
        ConfigError: if no point is legal, two are the same, a part is not registered, or the
            points set seeds.
    """
    _, fixed = _axes(points)

    def make(point: Point, changes: tuple[str, ...]) -> "RunConfig":
        return build(*sweep.assignments(point), *changes)

    return _grid(points, make, fixed, seeds, title, check, budget, swept)


def grid_of(
    points: Sweep,
    make: "Callable[[Point], RunConfig]",
    *,
    seeds: int,
    title: str = "ablation",
    base: Point | None = None,
    check: "Check | None" = None,
    budget: Budget | None = None,
    swept: Sequence[RateSweep] = (),
) -> AblationGrid:
    """Build a grid by any function from a point to a config.

    Args:
        points: dicts of any keys and values, from `miras.config.sweep` or made by hand. A value
            that is neither text nor JSON is named by its `__name__` or `repr`.
        make: returns the config of a run, or raises `ConfigError` for a point to skip.
        seeds: as of `make_grid`.
        title: of the grid.
        base: the point to which others are compared; the first one if not given.
        check: as of `make_grid`.
        budget: as of `make_grid`.
        swept: as of `make_grid`.

    Raises:
        ConfigError: as of `make_grid`, or if the base is no point.
    """
    points = tuple(points)
    require(
        base is None or base in points,
        f"base={base} is no point of the grid: give one of them.",
    )

    def made(point: Point, changes: tuple[str, ...]) -> "RunConfig":
        config = make(point)
        return override(config, *changes) if changes else config

    first = base if base is not None else next(iter(points), {})
    return _grid(points, made, first, seeds, title, check, budget, swept)


def _grid(
    points: Sweep,
    make: "Make",
    reference: Mapping[str, Any],
    seeds: int,
    title: str,
    check: "Check | None",
    budget: Budget | None,
    swept: Sequence[RateSweep],
) -> AblationGrid:
    require(seeds >= 1, f"seeds={seeds} must be at least 1.")
    require(bool(points), "a grid has no points: give at least one.")
    require(
        budget is None or budget in budgets.BUDGETS,
        f"budget={budget!r} must be one of {', '.join(budgets.BUDGETS)}.",
    )
    axes, fixed = _axes(points)
    built = [_built(point, axes, make, seeds) for point in points]
    base = _reference(make, reference, built)
    group = _base_group(built, base)
    if budget is not None and base is not None:
        matched = zip(points, built, strict=True)
        built = [_matched(cell, point, make, base, budget, axes) for point, cell in matched]
    found = _checked(built, TrainableCheck() if check is None else check)
    if swept:
        found = list(_at_rates(found, swept))
    cells = [cell for cell in found if isinstance(cell, GridCell)]
    illegal = [cell for cell in found if isinstance(cell, IllegalCell)]
    _check_any_legal(cells, illegal)
    _check_seeds(cells)
    _check_distinct(cells)
    places = [n for n, cell in enumerate(cells) if cell.group == group]
    return AblationGrid(
        title,
        axes,
        fixed,
        seeds,
        tuple(cells),
        tuple(illegal),
        base=places[0] if places else 0,
        without_preset=not places,
        budget=budget,
        swept={one.path: one.values for one in swept},
    )


def _reference(make: "Make", point: Mapping[str, Any], built: _Cells) -> "RunConfig | None":
    """The config to which others are compared and matched; the first legal one's in want of it."""
    try:
        return make(dict(point), ())
    except ConfigError:
        return next((cell.config for cell in built if isinstance(cell, GridCell)), None)


def _base_group(built: _Cells, base: "RunConfig | None") -> str | None:
    """The group of the cell whose config is that of the base; None if there is none."""
    if base is None:
        return None
    wanted = config_hash(base)
    legal = (cell for cell in built if isinstance(cell, GridCell))
    return next((cell.group for cell in legal if config_hash(cell.config) == wanted), None)


def _built(point: Point, axes: Iterable[str], make: "Make", seeds: int) -> GridCell | IllegalCell:
    """The cell of a point, not yet checked."""
    levels = {path: sweep.text(point[path]) if path in point else PRESET for path in axes}
    name = ", ".join(f"{path}={value}" for path, value in levels.items()) or PRESET
    try:
        config = make(point, ())
        seeded(config, seeds - 1)
    except UnknownPartError:  # a typing error, not a combination to skip
        raise
    except ConfigError as error:
        return IllegalCell(name, levels, _line(error))
    return GridCell(name, levels, config, group=name)


def _matched(
    cell: GridCell | IllegalCell,
    point: Point,
    make: "Make",
    base: "RunConfig",
    budget: Budget,
    axes: Iterable[str],
) -> GridCell | IllegalCell:
    """The cell with the budget of the base, or why it cannot have it."""
    if isinstance(cell, IllegalCell):
        return cell
    try:
        changes = budgets.changes(cell.config, base, budget, tuple(axes))
        if not changes:
            return cell
        return dataclasses.replace(cell, config=make(point, changes), changes=changes)
    except ConfigError as error:
        return IllegalCell(cell.name, cell.levels, _line(error))


def _at_rates(built: _Cells, swept: Sequence[RateSweep]) -> Iterator[GridCell | IllegalCell]:
    for cell in built:
        if isinstance(cell, IllegalCell):
            yield cell
        else:
            yield from rates.at_rates(cell, swept)


def _checked(built: _Cells, check: "Check") -> _Cells:
    """The cells with their held-out data, and the reasons of those that could not be trained."""
    legal = [cell for cell in built if isinstance(cell, GridCell)]
    common = held_out.common([cell.config for cell in legal])
    found: _Cells = []
    for cell in built:
        if isinstance(cell, IllegalCell):
            found.append(cell)
            continue
        config = common(cell.config)
        try:
            found.append(dataclasses.replace(cell, config=config, held_out=check(config)))
        except UnknownPartError:
            raise
        except ConfigError as error:
            found.append(IllegalCell(cell.name, cell.levels, _line(error)))
    return found


def _line(error: ConfigError) -> str:
    return " ".join(str(error).split())


def _axes(points: Sweep) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The fields that vary over the points, and the fields that do not."""
    paths = dict.fromkeys(path for point in points for path in point)
    values = {
        path: tuple(dict.fromkeys(sweep.text(p[path]) if path in p else PRESET for p in points))
        for path in paths
    }
    axes = {path: found for path, found in values.items() if len(found) > 1}
    return axes, {path: found[0] for path, found in values.items() if len(found) == 1}


def _check_any_legal(cells: list[GridCell], illegal: list[IllegalCell]) -> None:
    if cells:
        return
    groups: dict[str, list[IllegalCell]] = {}
    for cell in illegal:  # the error is before the colon, the fix after it
        groups.setdefault(cell.reason.partition(":")[0], []).append(cell)
    if len(groups) == 1:
        raise ConfigError(illegal[0].reason)
    reasons = "; ".join(
        f"{', '.join(cell.name for cell in cells)}: {cells[0].reason.removesuffix('.')}"
        for cells in groups.values()
    )
    raise ConfigError(
        f"none of the {len(illegal)} cells is legal ({reasons}): give at least one legal value."
    )


def _check_seeds(cells: list[GridCell]) -> None:
    bases = {
        (cell.config.train.seed, cell.config.data.seed, cell.config.data.seed_of_content)
        for cell in cells
    }
    require(
        len(bases) == 1,
        "seeds cannot be an axis, since all cells are trained with the same ones: give their "
        "number with --seeds, and the first as train.seed=N.",
    )


def _check_distinct(cells: list[GridCell]) -> None:
    known: dict[str, GridCell] = {}
    for cell in cells:
        same = known.setdefault(config_hash(cell.config), cell)
        require(
            same is cell,
            f"{same.name} and {cell.name} are the same model and training: leave one out.",
        )
