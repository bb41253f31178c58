"""The cells of a grid, legal and illegal, its runs, and its identity.

A cell is a config. An illegal one raises ConfigError when it is built, before anything is trained.
`make_grid` builds grids.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from miras.config import config_hash, override, to_dict

if TYPE_CHECKING:
    from miras.train import RunConfig

PRESET = "(preset)"  # the level of a field that a point does not set


class SweptRate(NamedTuple):
    """A rate at which a cell is trained.

    Attributes:
        path: of the field, see `rates`.
        text: as given, such as "0.5x".
        value: the rate; of several memories, the first one's.
    """

    path: str
    text: str
    value: float


@dataclasses.dataclass(frozen=True)
class GridCell:
    """A legal combination.

    Attributes:
        name: its levels, such as "bias=l2, chunk=16".
        levels: the value of each axis, as text.
        config: its run with the first seed.
        held_out: digest of its held-out data; None if it was not read.
        group: the cell at its own rates; several cells of a group differ in `rates`.
        rates: that the grid sweeps.
        changes: the assignments that brought it to the grid's budget.
    """

    name: str
    levels: dict[str, str]
    config: "RunConfig"
    held_out: str | None = None
    group: str = ""
    rates: tuple[SweptRate, ...] = ()
    changes: tuple[str, ...] = ()


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
        budget: what the cells have the same of, see `budget`; None for nothing.
        swept: the rates that are swept in each cell, with their values as given.
    """

    title: str
    axes: dict[str, tuple[str, ...]]
    fixed: dict[str, str]
    seeds: int
    cells: tuple[GridCell, ...]
    illegal: tuple[IllegalCell, ...]
    base: int = 0
    without_preset: bool = False
    budget: str | None = None
    swept: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

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
            **({"budget": self.budget} if self.budget else {}),
            **({"swept": {k: list(v) for k, v in self.swept.items()}} if self.swept else {}),
            "held_out": "common",  # in earlier versions each seed had its own
            "cells": {cell.name: config_hash(cell.config) for cell in self.cells},
            "illegal": [cell.name for cell in self.illegal],
            "config": to_dict(self.cells[0].config),
        }


def grouped(illegal: Iterable[IllegalCell]) -> dict[str, list[IllegalCell]]:
    """Illegal cells by reason, in order."""
    groups: dict[str, list[IllegalCell]] = {}
    for cell in illegal:
        groups.setdefault(cell.reason, []).append(cell)
    return groups


def seeded(config: "RunConfig", i: int) -> "RunConfig":
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
    config = seeded(cell.config, i)
    levels = re.sub(r"[^A-Za-z0-9.+]+", "-", "-".join(cell.levels.values())).strip("-.")[:60]
    seed = config.train.seed
    slug = f"{levels or 'preset'}-seed{seed}-{config_hash(config)}"
    return GridRun(number, cell.name, seed, config, slug)
