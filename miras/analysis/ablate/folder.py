"""A grid's folder: its files, the grid it belongs to, and the lock of the process that uses it.

grid.json  results.jsonl  table.csv  table.md  effects.csv  plot.png  curves.png
rates.csv  rates.png  lock
runs/SLUG/         a training run, see `miras.train.runs.run_folder`, and its outcome.json
logs/SLUG.log      the output of a run's process
logs/SLUG.node     the machine of the run's process, on a cluster
compiled/          compiled programs that the seeds of a cell share, while the grid is trained
plugins/           user code that the cells need, see `miras.config.plugins`
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

from miras.analysis.ablate.grid import AblationGrid
from miras.config import difference_of, plugins
from miras.errors import ConfigError
from miras.runtime.files import is_leftover, write_atomically
from miras.runtime.paths import local_path
from miras.train.runs import disk_lock
from miras.train.runs.run_folder import RunFolder, cannot_write

_OURS_BEFORE_GRID = {*disk_lock.FILES, "grid.json.new", "plugins"}


class GridFolder:
    """The paths in a grid's folder. Creating the object does not touch the disk.

    Raises:
        ConfigError: the path is a URL.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = local_path(path)
        self.grid = self.path / "grid.json"
        self.results = self.path / "results.jsonl"
        self.table = self.path / "table.csv"
        self.markdown = self.path / "table.md"
        self.effects = self.path / "effects.csv"
        self.plot = self.path / "plot.png"
        self.curves = self.path / "curves.png"
        self.rates = self.path / "rates.csv"
        self.rates_plot = self.path / "rates.png"
        self.runs = self.path / "runs"
        self.logs = self.path / "logs"
        self.compiled = self.path / "compiled"
        self.plugins = self.path / "plugins"

    def check(self, grid: AblationGrid) -> None:
        """Check that the folder is new, empty or this grid's; nothing is written.

        Raises:
            ConfigError: for any other folder, with the difference.
        """
        try:
            found = list(self.path.iterdir()) if self.path.is_dir() else []
            is_file = self.path.exists() and not self.path.is_dir()
        except OSError as error:
            raise ConfigError(
                f"{str(self.path)[:60]!r}... cannot be a folder ({error.strerror}): give another "
                "with --out."
            ) from error
        if is_file:
            raise ConfigError(f"{self.path} is a file: give a folder with --out.")
        if self.grid.exists():
            saved = self._read()
            if _work(saved) != _work(grid.identity()):
                raise ConfigError(
                    f"{self.path} holds another grid ({'; '.join(_changes(saved, grid))}): repeat "
                    "its command to resume it, or give another folder with --out."
                )
        elif {p.name for p in found if not is_leftover(p.name)} - _OURS_BEFORE_GRID:
            raise ConfigError(
                f"{self.path} is not empty and holds no grid: give another folder with --out."
            )

    @contextlib.contextmanager
    def opened(self, grid: AblationGrid, *, shared: bool = False) -> Iterator[None]:
        """Lock the folder for this process, and create its files and subfolders.

        Args:
            grid: of the folder.
            shared: whether other machines write runs there.

        Raises:
            ConfigError: for another grid's folder, one in use, or one that cannot be written.
        """
        self.check(grid)
        folder = RunFolder(self.path)
        if shared:
            folder.share()
        with folder.locked():
            self.check(grid)  # another process may have written it before the lock
            shutil.rmtree(
                self.compiled, ignore_errors=True
            )  # perhaps incomplete, from a killed process
            try:
                for folder in (self.runs, self.logs, self.compiled):
                    folder.mkdir(exist_ok=True)
                plugins.save(self.plugins, *(cell.config for cell in grid.cells))
                write_atomically(self.grid, json.dumps(grid.identity(), indent=1) + "\n")
                yield
            except OSError as error:
                raise ConfigError(cannot_write(self.path, error)) from error
            finally:
                shutil.rmtree(self.compiled, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            saved = json.loads(self.grid.read_text())
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"{self.grid} is damaged ({error}): give another folder with --out."
            ) from error
        return saved if isinstance(saved, dict) else {}


def _work(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity without the config, whose fields vary by version; hashes stand for it."""
    without = {"config", "held_out"} if identity.get("seeds") == 1 else {"config"}
    return {name: value for name, value in identity.items() if name not in without}


def _changes(saved: dict[str, Any], grid: AblationGrid) -> list[str]:
    """The differences between a saved grid and this one, as "field: old -> new"."""
    new = grid.identity()
    lines = [
        f"{name}: {saved.get(name)} -> {new[name]}"
        for name in ("title", "seeds")
        if saved.get(name) != new[name]
    ]
    if "held_out" not in saved and new["seeds"] > 1:
        lines.append("it is of an earlier version, in which each seed had held-out data of its own")
    before, after = _values(saved), _values(new)
    lines += [
        f"{path}: {before.get(path, '(absent)')} -> {after.get(path, '(absent)')}"
        for path in {**before, **after}
        if before.get(path) != after.get(path)
    ]
    if before == after:  # another text, or another version of the preset
        lines += difference_of(saved.get("config", {}), new["config"])
    return lines or ["the order of its values, or its parts in this version of miras"]


def _values(identity: dict[str, Any]) -> dict[str, str]:
    axes = {path: ",".join(values) for path, values in identity.get("axes", {}).items()}
    swept = {
        f"--sweep {path}": ",".join(values) for path, values in identity.get("swept", {}).items()
    }
    budget = {"--budget": identity["budget"]} if "budget" in identity else {}
    return axes | identity.get("fixed", {}) | swept | budget
