"""The cells of a grid, legal and illegal, and the identity of a grid.

A cell is a config. An illegal one raises ConfigError when it is built, before anything is trained.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from miras.analysis.ablate import held_out
from miras.analysis.ablate.trainable import TrainableCheck
from miras.config import config_hash, override, require, sweep, to_dict
from miras.config.sweep import Sweep
from miras.errors import ConfigError, UnknownPartError

if TYPE_CHECKING:
    from miras.train import RunConfig

PRESET = "(preset)"  # the level of a field that a point does not set


@dataclasses.dataclass(frozen=True)
class GridCell:
    """A legal combination.

    Attributes:
        name: its levels, such as "bias=l2, chunk=16".
        levels: the value of each axis, as text.
        config: its run with the first seed.
        held_out: digest of its held-out data; None if it was not read.
    """

    name: str
    levels: dict[str, str]
    config: "RunConfig"
    held_out: str | None = None


@dataclasses.dataclass(frozen=True)
class IllegalCell:
    """An illegal combination.

    Attributes:
        name: as of a legal cell.
        levels: as of a legal cell.
        reason: the message of the `ConfigError`.
    """

    name: str
    levels: dict[str, str]
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class GridRun:
    """One training run: a cell with a seed. Compared by identity, so that it can be a dict key.

    Attributes:
        cell: its index among the grid's legal cells.
        name: of the cell.
        seed: `train.seed`.
        config: of the run.
        slug: unique name of its folder.
    """

    cell: int
    name: str
    seed: int
    config: "RunConfig"
    slug: str


@dataclasses.dataclass(frozen=True)
class AblationGrid:
    """The cells and seeds to train.

    Attributes:
        title: of the grid, such as the preset that it varies.
        axes: the fields that vary, with their values as text, in the order given.
        fixed: the fields with the same value in all cells.
        seeds: number of runs per cell.
        cells: the legal combinations.
        illegal: the illegal combinations.
        base: index of the cell to which others are compared.
        without_preset: whether no cell is the preset, so that the base is only the first cell.
    """

    title: str
    axes: dict[str, tuple[str, ...]]
    fixed: dict[str, str]
    seeds: int
    cells: tuple[GridCell, ...]
    illegal: tuple[IllegalCell, ...]
    base: int = 0
    without_preset: bool = False

    @functools.cached_property
    def runs(self) -> tuple[GridRun, ...]:
        """Every cell with the first seed, then every cell with the second, and so on."""
        return tuple(
            _run(number, cell, i)
            for i in range(self.seeds)
            for number, cell in enumerate(self.cells)
        )

    def identity(self) -> dict[str, Any]:
        """The grid as JSON values; two grids with equal identities train the same runs."""
        return {
            "title": self.title,
            "seeds": self.seeds,
            "axes": {path: list(values) for path, values in self.axes.items()},
            "fixed": self.fixed,
            "held_out": "common",  # in earlier versions each seed had its own
            "cells": {cell.name: config_hash(cell.config) for cell in self.cells},
            "illegal": [cell.name for cell in self.illegal],
            "config": to_dict(self.cells[0].config),
        }


def make_grid(
    points: Sweep,
    build: "Callable[..., RunConfig]",
    *,
    seeds: int,
    title: str = "ablation",
    check: "Callable[[RunConfig], str | None] | None" = None,
) -> AblationGrid:
    """Build the config of every point, and separate the legal from the illegal ones.

    Args:
        points: from `miras.config.sweep`.
        build: makes a run's config from a point's overrides, as `functools.partial(override,
            base)` does.
        seeds: number of runs per cell, >= 1. Run i adds i to `train.seed` and `data.seed`, and
            keeps the content of the data, see `held_out`.
        title: of the grid.
        check: raises `ConfigError` for a config that can be built but not trained, and returns a
            digest of its held-out data or None; `TrainableCheck()` if not given.

    Raises:
        ConfigError: if no point is legal, two are the same, a part is not registered, or the
            points set seeds.
    """
    require(seeds >= 1, f"seeds={seeds} must be at least 1.")
    require(bool(points), "a grid has no points: give at least one.")
    check = TrainableCheck() if check is None else check
    axes, fixed = _axes(points)
    built = [_built(point, axes, build, seeds) for point in points]
    common = held_out.common([cell.config for cell in built if isinstance(cell, GridCell)])
    checked = [
        _checked(cell, common(cell.config), check) if isinstance(cell, GridCell) else cell
        for cell in built
    ]
    cells = [cell for cell in checked if isinstance(cell, GridCell)]
    illegal = [cell for cell in checked if isinstance(cell, IllegalCell)]
    _check_any_legal(cells, illegal)
    _check_seeds(cells)
    _check_distinct(cells)
    base = _base(cells, common, functools.partial(build, *sweep.assignments(fixed)))
    return AblationGrid(
        title, axes, fixed, seeds, tuple(cells), tuple(illegal), base or 0, base is None
    )


def _base(
    cells: list[GridCell],
    common: "Callable[[RunConfig], RunConfig]",
    preset: "Callable[[], RunConfig]",
) -> int | None:
    """The cell that is the preset with the fixed fields; None if there is none."""
    try:
        wanted = config_hash(common(preset()))
    except ConfigError:
        return None
    hashes = [config_hash(cell.config) for cell in cells]
    return hashes.index(wanted) if wanted in hashes else None


def _built(
    point: Mapping[str, Any],
    axes: Iterable[str],
    build: "Callable[..., RunConfig]",
    seeds: int,
) -> "GridCell | IllegalCell":
    """The cell of a point, not yet checked."""
    levels = {path: sweep.text(point[path]) if path in point else PRESET for path in axes}
    name = ", ".join(f"{path}={value}" for path, value in levels.items()) or PRESET
    try:
        config = build(*sweep.assignments(point))
        _seeded(config, seeds - 1)
    except UnknownPartError:  # a typing error, not a combination to skip
        raise
    except ConfigError as error:
        return IllegalCell(name, levels, " ".join(str(error).split()))
    return GridCell(name, levels, config)


def _checked(
    cell: GridCell, config: "RunConfig", check: "Callable[[RunConfig], str | None]"
) -> "GridCell | IllegalCell":
    """The cell with a config and the digest of its held-out data, or why it is illegal."""
    try:
        return dataclasses.replace(cell, config=config, held_out=check(config))
    except UnknownPartError:
        raise
    except ConfigError as error:
        return IllegalCell(cell.name, cell.levels, " ".join(str(error).split()))


def grouped(illegal: Iterable[IllegalCell]) -> dict[str, list[IllegalCell]]:
    """Illegal cells by reason, in order."""
    groups: dict[str, list[IllegalCell]] = {}
    for cell in illegal:
        groups.setdefault(cell.reason, []).append(cell)
    return groups


def _axes(points: Sweep) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The fields that vary over the points, and the fields that do not."""
    paths = dict.fromkeys(path for point in points for path in point)
    values = {
        path: tuple(dict.fromkeys(sweep.text(p[path]) if path in p else PRESET for p in points))
        for path in paths
    }
    axes = {path: found for path, found in values.items() if len(found) > 1}
    return axes, {path: found[0] for path, found in values.items() if len(found) == 1}


def _seeded(config: "RunConfig", i: int) -> "RunConfig":
    """The run with another initialisation and order of training, on the same data."""
    if not i:
        return config
    return override(
        config,
        f"train.seed={config.train.seed + i}",
        f"data.seed={config.data.seed + i}",
        f"data.content_seed={config.data.seed_of_content}",
    )


def _run(number: int, cell: GridCell, i: int) -> GridRun:
    config = _seeded(cell.config, i)
    levels = re.sub(r"[^A-Za-z0-9.+]+", "-", "-".join(cell.levels.values())).strip("-.")[:60]
    seed = config.train.seed
    slug = f"{levels or 'preset'}-seed{seed}-{config_hash(config)}"
    return GridRun(number, cell.name, seed, config, slug)


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
