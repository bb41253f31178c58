"""The curves of several runs: measurements over steps, tokens and time."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from miras.analysis.runs.listing import differences
from miras.analysis.runs.store import Folder, flat_config, is_grid, read_lines, run_folders
from miras.errors import ConfigError
from miras.runtime import paths
from miras.train.loggers.jsonl import Line

# What a curve shows: kind and field of the lines, and its name.
MEASURES = {
    "held-out bits per byte": ("held_out", "bits_per_byte"),
    "training bits per byte": ("train", "bits_per_byte"),
    "held-out accuracy": ("held_out", "accuracy"),
    "training loss": ("train", "loss"),
    "gradient norm": ("train", "gradient_norm"),
    "learning rate": ("train", "learning_rate"),
    "tokens/s": ("train", "tokens_per_second"),
    "goodput": ("train", "goodput"),
}


class ComparedRun(NamedTuple):
    """A run to compare.

    Attributes:
        name: of its folder, unique among the runs.
        lines: of `metrics.jsonl`.
        tokens_per_step: that an update reads.
        differences: "path=value" of the fields in which the runs differ.
    """

    name: str
    lines: list[Line]
    tokens_per_step: int
    differences: list[str]

    @property
    def step(self) -> int:
        """Of the last line."""
        return max((line["step"] for line in self.lines), default=0)

    def curve(self, kind: str, field: str) -> list[tuple[int, float, float | None]]:
        """Step, value, and hours of wall time since the run began if known, by step."""
        return [
            (line["step"], float(value), _hours(line))
            for line in self.lines
            if line.get("kind") == kind
            and isinstance(value := line.get(field), int | float)
            and math.isfinite(value)
        ]

    def last(self, kind: str, field: str) -> str:
        """The last value of a curve as text; "" if there is none."""
        curve = self.curve(kind, field)
        return f"{curve[-1][1]:.3f}" if curve else ""


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> list[ComparedRun]:
    """The runs in some folders.

    Args:
        folders: of runs, or of grids of `miras ablate`, whose runs with measurements are taken; on
            a disk or an object store.

    Raises:
        ConfigError: a folder holds no run, or no measurements.
    """
    found, configs = [], []
    for folder in folders:
        for path, config, lines in _runs(paths.open_path(folder)):
            found.append((os.fspath(path).rstrip("/"), lines))
            configs.append(config)
    names = _unique([name for name, _ in found])
    told = differences(configs)
    return [
        ComparedRun(name, _with_hours(lines), _tokens(config), differs)
        for name, (_, lines), config, differs in zip(names, found, configs, told, strict=True)
    ]


def _runs(path: Folder) -> list[tuple[Folder, Mapping[str, Any], list[Line]]]:
    """The run in a folder, or those of a grid; with their configs and lines."""
    config, lines = flat_config(path), read_lines(path)
    if config and lines:
        return [(path, config, lines)]
    if config or not is_grid(path):
        what = "no measurements (metrics.jsonl)" if config else "no run (config.json)"
        raise ConfigError(f"{path} has {what}: give folders that `miras train` wrote.")
    read = [(run, flat_config(run), read_lines(run)) for run in run_folders(path)]
    known = [run for run in read if run[1] and run[2]]
    if not known:
        raise ConfigError(f"{path} is a grid whose runs have no measurements yet: wait for them.")
    return known


def _tokens(config: Mapping[str, Any]) -> int:
    sizes = "train.accumulate", "data.batch", "data.sequence"
    return math.prod(int(config.get(size, 1)) for size in sizes)


def _unique(names: list[str]) -> list[str]:
    """The last components of paths, with as many before them as tell them apart."""
    for count in range(1, 1 + max(name.count("/") for name in names) + 1):
        short = ["/".join(name.split("/")[-count:]) for name in names]
        if len(set(short)) == len(short):
            return short
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _hours(line: Mapping[str, Any]) -> float | None:
    return line.get("hours")


def _with_hours(lines: list[Line]) -> list[Line]:
    """The lines with the hours since the run began, those between processes included."""
    times = [line["time"] for line in lines if isinstance(line.get("time"), int | float)]
    if len(times) != len(lines):
        return lines  # of an earlier version
    return [line | {"hours": (line["time"] - times[0]) / 3600} for line in lines]
