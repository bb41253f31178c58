"""Files of run folders, on a disk or on an object store, read without their plugins."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from miras.errors import ConfigError
from miras.runtime import paths
from miras.train.loggers.jsonl import Line, parse_metrics

Folder = epath.Path
GRID = "grid.json"
"""The file that the folder of a grid has, see `miras.analysis.ablate.folder`."""


def run_folders(root: str | os.PathLike[str]) -> list[Folder]:
    """The folders of runs: the folder itself, or those in it.

    Args:
        root: a folder of a run, of runs, or of a grid of `miras ablate`, or gs://BUCKET/... or
            s3://BUCKET/....

    Raises:
        ConfigError: there is no such folder, or the object store cannot be reached.
    """
    folder = paths.open_path(root)
    if paths.is_remote(folder):
        inner = paths.entries(folder)
        if GRID in inner:
            folder = folder / "runs"
            inner = paths.entries(folder)
        names = sorted(name for name, is_folder in inner.items() if is_folder)
        return [folder] if "config.json" in inner else [folder / name for name in names]
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder: give one of runs, such as runs.")
    if (folder / "config.json").is_file():
        return [folder]
    if (folder / GRID).is_file():
        folder = folder / "runs"
    return sorted(path for path in folder.iterdir() if (path / "config.json").is_file())


def is_grid(folder: Folder) -> bool:
    """Whether a folder is that of a grid.

    Raises:
        ConfigError: the object store cannot be reached.
    """
    if paths.is_remote(folder):
        return GRID in paths.entries(folder)
    return (folder / GRID).is_file()


def read_json(path: Folder) -> dict[str, Any]:
    """A mapping in a file; empty if there is none or it cannot be read."""
    try:
        found = json.loads(paths.read(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(folder: Folder) -> list[Line]:
    """The lines of a run's `metrics.jsonl`; none if there is none."""
    try:
        return parse_metrics(paths.read(folder / "metrics.jsonl").decode("utf-8", "replace"))
    except (OSError, ValueError):
        return []


def flat_config(folder: Folder) -> Mapping[str, Any]:
    """A run's config by path, as it was saved."""
    from miras.config.comparison import flatten

    return flatten(read_json(folder / "config.json"))


def held(folder: Folder) -> bool | None:
    """Whether a process of this machine holds the lock of a folder; None if that is not known.

    It reads the table of locks of Linux, since trying the lock could fail a run that starts.
    """
    try:
        status = os.stat(pathlib.Path(folder / "lock"))
        table = pathlib.Path("/proc/locks").read_text()
    except (OSError, ValueError):
        return None
    name = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(name in line.split() for line in table.splitlines())
