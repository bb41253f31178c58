"""The cells of a grid, which of them are legal, and what tells one grid from another.

A cell is a config; whether it is legal shows when it is built, before anything is trained. How
cells are trained stands in `jobs`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from miras.config import config_hash, override, require, sweep, to_dict
from miras.config.sweep import Sweep
from miras.errors import ConfigError, UnknownPartError

if TYPE_CHECKING:
    from miras.train import RunConfig

PRESET = "(preset)"  # the level of a field that a point leaves alone


@dataclasses.dataclass(frozen=True)
class Cell:
    """A legal combination.

    Attributes:
        name: its levels as one would say them, "bias=l2, chunk=16".
        levels: the value of each axis, as text.
        config: its run at the first seed.
    """

    name: str
    levels: dict[str, str]
    config: "RunConfig"


@dataclasses.dataclass(frozen=True)
class Illegal:
    """A combination that cannot be.

    Attributes:
        name: as a cell's.
        levels: as a cell's.
        reason: the sentence of the `ConfigError`.
    """

    name: str
    levels: dict[str, str]
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One training run: a cell at a seed. The same only as itself, so it may key a dict.

    Attributes:
        cell: its index among the grid's legal cells.
        name: the cell's.
        seed: `train.seed`.
        config: all that decides its outcome.
        slug: name of its folder, unique.
    """

    cell: int
    name: str
    seed: int
    config: "RunConfig"
    slug: str


@dataclasses.dataclass(frozen=True)
class Grid:
    """What to train.

    Attributes:
        title: what the cells are variations of, as a preset's name.
        axes: the fields that vary, with their values as text, in the order given.
        fixed: the fields that are set alike in all cells, with the value.
        seeds: runs of each cell.
        cells: the legal combinations.
        illegal: the others.
    """

    title: str
    axes: dict[str, tuple[str, ...]]
    fixed: dict[str, str]
    seeds: int
    cells: tuple[Cell, ...]
    illegal: tuple[Illegal, ...]

    @functools.cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every cell at the first seed, then every cell at the second, and so on."""
        return tuple(
            _run(number, cell, i)
            for i in range(self.seeds)
            for number, cell in enumerate(self.cells)
        )

    def identity(self) -> dict[str, Any]:
        """The grid as plain JSON values: two grids with one identity are the same work."""
        return {
            "title": self.title,
            "seeds": self.seeds,
            "axes": {path: list(values) for path, values in self.axes.items()},
            "fixed": self.fixed,
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
    check: "Callable[[RunConfig], None] | None" = None,
) -> Grid:
    """Build the config of every point, and set aside those that cannot be.

    Args:
        points: as `miras.config.sweep` makes them.
        build: a run's config from a point's assignments; `functools.partial(override, base)`.
        seeds: runs of each cell, >= 1. Run i has `train.seed` and `data.seed` greater by i.
        title: what the cells are variations of.
        check: raises `ConfigError` for a config that could be built and not trained; `Trainable()`
            if not given.

    Raises:
        ConfigError: where no point is legal, two are the same, a part has a name that is not
            registered, or the points set seeds.
    """
    require(seeds >= 1, f"seeds={seeds} must be at least 1.")
    require(bool(points), "a grid has no points: give at least one.")
    check = Trainable() if check is None else check
    axes, fixed = _axes(points)
    cells: list[Cell] = []
    illegal: list[Illegal] = []
    for point in points:
        levels = {path: sweep.text(point[path]) if path in point else PRESET for path in axes}
        name = ", ".join(f"{path}={value}" for path, value in levels.items()) or PRESET
        try:
            config = build(*sweep.assignments(point))
            _seeded(config, seeds - 1)
            check(config)
        except UnknownPartError:  # a slip of the pen, and no combination that was meant
            raise
        except ConfigError as error:
            illegal.append(Illegal(name, levels, " ".join(str(error).split())))
        else:
            cells.append(Cell(name, levels, config))
    _refuse_none_legal(cells, illegal)
    _refuse_swept_seeds(cells)
    _refuse_same(cells)
    return Grid(title, axes, fixed, seeds, tuple(cells), tuple(illegal))


class Trainable:
    """Raises `ConfigError` for a run that would be refused once it starts; writes nothing.

    The model is built from shapes alone, and each text is opened once.
    """

    def __init__(self):
        self._seen: dict[Any, str | None] = {}

    def __call__(self, config: "RunConfig") -> None:
        """Try one config."""
        from miras.train.state import structure

        structure(config.model)
        key = (config.data, config.train, config.model.align, config.model.vocab)
        if key not in self._seen:
            self._seen[key] = self._refusal(config)
        reason = self._seen[key]
        require(reason is None, str(reason))

    def _refusal(self, config: "RunConfig") -> str | None:
        from rich.console import Console

        from miras.train.loop import Session
        from miras.train.runs.run_folder import RunFolder

        try:
            Session(config, RunFolder(""), Console(quiet=True))
        except ConfigError as error:
            return str(error)
        return None


def grouped(illegal: Iterable[Illegal]) -> dict[str, list[Illegal]]:
    """Illegal combinations by reason, in order."""
    groups: dict[str, list[Illegal]] = {}
    for cell in illegal:
        groups.setdefault(cell.reason, []).append(cell)
    return groups


def _axes(points: Sweep) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The fields that vary over the points, and those that do not."""
    paths = dict.fromkeys(path for point in points for path in point)
    values = {
        path: tuple(dict.fromkeys(sweep.text(p[path]) if path in p else PRESET for p in points))
        for path in paths
    }
    axes = {path: found for path, found in values.items() if len(found) > 1}
    return axes, {path: found[0] for path, found in values.items() if len(found) == 1}


def _seeded(config: "RunConfig", i: int) -> "RunConfig":
    return override(
        config, f"train.seed={config.train.seed + i}", f"data.seed={config.data.seed + i}"
    )


def _run(number: int, cell: Cell, i: int) -> Run:
    config = _seeded(cell.config, i)
    words = re.sub(r"[^A-Za-z0-9.+]+", "-", "-".join(cell.levels.values())).strip("-.")[:60]
    seed = config.train.seed
    slug = f"{words or 'preset'}-seed{seed}-{config_hash(config)}"
    return Run(number, cell.name, seed, config, slug)


def _refuse_none_legal(cells: list[Cell], illegal: list[Illegal]) -> None:
    if cells:
        return
    groups: dict[str, list[Illegal]] = {}
    for cell in illegal:  # what is wrong stands before the colon, what is legal behind it
        groups.setdefault(cell.reason.partition(":")[0], []).append(cell)
    if len(groups) == 1:
        raise ConfigError(illegal[0].reason)
    reasons = "; ".join(
        f"{', '.join(cell.name for cell in cells)}: {cells[0].reason.removesuffix('.')}"
        for cells in groups.values()
    )
    raise ConfigError(f"none of the {len(illegal)} cells is legal ({reasons}).")


def _refuse_swept_seeds(cells: list[Cell]) -> None:
    bases = {(cell.config.train.seed, cell.config.data.seed) for cell in cells}
    require(
        len(bases) == 1,
        "seeds are no axis, since every cell is trained under the same ones: give their number "
        "with --seeds, and the first as train.seed=N.",
    )


def _refuse_same(cells: list[Cell]) -> None:
    known: dict[str, Cell] = {}
    for cell in cells:
        same = known.setdefault(config_hash(cell.config), cell)
        require(
            same is cell,
            f"{same.name} and {cell.name} are the same model trained alike: leave one out.",
        )
