"""A grid's folder: which grid it belongs to, who works in it, and where things lie.

grid.json  results.jsonl  table.csv  table.md  effects.csv  plot.png  lock
runs/SLUG/         one training run each, see `miras.train.runs.run_folder`, and its outcome.json
logs/SLUG.log      what a run's process said
compiled/          programs that the seeds of a cell share, while the grid is worked on
plugins/           code of the user's own that the cells need, see `miras.config.plugins`
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

from miras.analysis.ablate.grid import Grid
from miras.config import difference_of, plugins
from miras.errors import ConfigError
from miras.runtime.files import expanded, is_leftover, write_whole
from miras.train.runs.run_folder import RunFolder, cannot_write

_OURS_BEFORE_GRID = {"lock", "grid.json.new", "plugins"}


class GridFolder:
    """The paths in a grid's folder. Making one touches nothing."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = expanded(path)
        self.grid = self.path / "grid.json"
        self.results = self.path / "results.jsonl"
        self.table = self.path / "table.csv"
        self.markdown = self.path / "table.md"
        self.effects = self.path / "effects.csv"
        self.plot = self.path / "plot.png"
        self.runs = self.path / "runs"
        self.logs = self.path / "logs"
        self.compiled = self.path / "compiled"
        self.plugins = self.path / "plugins"

    def check(self, grid: Grid) -> None:
        """Refuse a folder that is another grid's, or something else; nothing is written.

        Raises:
            ConfigError: showing what differs.
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
            raise ConfigError(f"{self.path} is a file: give a folder for the results.")
        if self.grid.exists():
            saved = self._read()
            if _work(saved) != _work(grid.identity()):
                raise ConfigError(
                    f"{self.path} holds another grid ({'; '.join(_changes(saved, grid))}): give "
                    "the same command to go on with it, or another folder with --out."
                )
        elif {p.name for p in found if not is_leftover(p.name)} - _OURS_BEFORE_GRID:
            raise ConfigError(
                f"{self.path} is not empty and holds no grid: give another folder with --out."
            )

    @contextlib.contextmanager
    def opened(self, grid: Grid) -> Iterator[None]:
        """Hold the folder for this process, with the grid and the folders of its parts in it.

        Raises:
            ConfigError: for another grid's folder, one in use, or one that cannot be written.
        """
        self.check(grid)
        with RunFolder(self.path).locked():
            self.check(grid)  # another process may have been first
            shutil.rmtree(self.compiled, ignore_errors=True)  # a killed one's, perhaps in part
            try:
                for folder in (self.runs, self.logs, self.compiled):
                    folder.mkdir(exist_ok=True)
                plugins.save(self.plugins, *(cell.config for cell in grid.cells))
                write_whole(self.grid, json.dumps(grid.identity(), indent=1) + "\n")
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
                f"{self.grid} cannot be read ({error}): it is damaged; give another folder."
            ) from error
        return saved if isinstance(saved, dict) else {}


def _work(identity: dict[str, Any]) -> dict[str, Any]:
    """What decides the work: the cells' hashes, and not their fields as one version lists them."""
    return {name: value for name, value in identity.items() if name != "config"}


def _changes(saved: dict[str, Any], grid: Grid) -> list[str]:
    """What differs between a saved grid and one at hand, as "what: old -> new"."""
    new = grid.identity()
    lines = [
        f"{name}: {saved.get(name)} -> {new[name]}"
        for name in ("title", "seeds")
        if saved.get(name) != new[name]
    ]
    before, after = _values(saved), _values(new)
    lines += [
        f"{path}: {before.get(path, '(absent)')} -> {after.get(path, '(absent)')}"
        for path in {**before, **after}
        if before.get(path) != after.get(path)
    ]
    if before == after:  # another text, or a preset that is not what it was
        lines += difference_of(saved.get("config", {}), new["config"])
    return lines or ["the order of its values, or what its parts mean in this version of miras"]


def _values(identity: dict[str, Any]) -> dict[str, str]:
    axes = {path: ",".join(values) for path, values in identity.get("axes", {}).items()}
    return axes | identity.get("fixed", {})
