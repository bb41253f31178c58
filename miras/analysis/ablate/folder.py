"""A grid's folder: its files, the grid it belongs to, and the lock of the process that uses it.

It is on a disk, or on an object store (`gs://...`, `s3://...`), where each file is an object that
is written whole.

grid.json  results.jsonl  table.csv  table.md  effects.csv  plot.png  curves.png
rates.csv  rates.png  lock
writer/            the leases of the processes that used it, if several machines can see it
runs/SLUG/         a training run, see `miras.train.runs.run_folder`, and its outcome.json
logs/SLUG.log      the output of a run's process
logs/SLUG.node     the machine of the run's process, on a cluster
compiled/          compiled programs that the seeds of a cell share, while the grid is trained;
                   those of a grid on an object store are in the user's cache on each machine
plugins/           user code that the cells need, see `miras.config.plugins`
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from miras.analysis.ablate import grid_plugins
from miras.analysis.ablate.grid import AblationGrid
from miras.config import difference_of
from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.files import is_leftover
from miras.train.runs import disk_lock
from miras.train.runs.disk_lock import DiskLock, cannot_write
from miras.train.runs.lease import Lease

_OURS_BEFORE_GRID = {*disk_lock.FILES, "grid.json.new", "plugins"}


class GridFolder:
    """The paths in a grid's folder. The constructor accesses neither disk nor store.

    Attributes:
        path: of the folder; the others are paths in it.
        remote: whether it is on an object store.
        compiled: None on an object store.

    Raises:
        ConfigError: the scheme of a URL is unknown, or its library is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = paths.open_path(path)
        self.remote = paths.is_remote(self.path)
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
        self.compiled = None if self.remote else pathlib.Path(self.path / "compiled")
        self.plugins = self.path / "plugins"
        self._lease: Lease | None = None

    @property
    def address(self) -> str:
        """The folder as a process elsewhere names it: a URL, or an absolute path."""
        return os.fspath(self.path if self.remote else self.path.absolute())

    def check(self, grid: AblationGrid) -> None:
        """Check that the folder is new, empty or this grid's; nothing is written.

        Raises:
            ConfigError: for any other folder, with the difference, or if the object store cannot
                be reached.
        """
        found = set(paths.entries(self.path) if self.remote else _on_disk(pathlib.Path(self.path)))
        if self.grid.name in found:
            saved = self._read()
            if _work(saved) != _work(grid.identity()):
                raise ConfigError(
                    f"{self.path} holds another grid ({'; '.join(_changes(saved, grid))}): repeat "
                    "its command to resume it, or give another folder with --out."
                )
        elif {name for name in found if not is_leftover(name)} - _OURS_BEFORE_GRID:
            raise ConfigError(
                f"{self.path} is not empty and holds no grid: give another folder with --out."
            )

    @contextlib.contextmanager
    def opened(self, grid: AblationGrid, *, shared: bool = False) -> Iterator[None]:
        """Lock the folder for this process, and create its files and subfolders.

        Args:
            grid: of the folder.
            shared: whether other machines write runs there; an object store is always shared.

        Raises:
            ConfigError: for another grid's folder, one in use, or one that cannot be written.
        """
        self.check(grid)
        with self._locked(shared):
            self.check(grid)  # another process may have written it before the lock
            self._remove_compiled()  # perhaps incomplete, from a killed process
            try:
                if self.compiled is not None:
                    for folder in (self.runs, self.logs, self.compiled):
                        folder.mkdir(exist_ok=True)
                grid_plugins.save(self.plugins, [cell.config for cell in grid.cells])
                paths.write(self.grid, json.dumps(grid.identity(), indent=1) + "\n")
                yield
            except OSError as error:
                raise ConfigError(cannot_write(pathlib.Path(self.path), error)) from error
            finally:
                self._remove_compiled()

    def check_writer(self) -> None:
        """Check that no other process has taken over an opened folder on an object store.

        Raises:
            LeaseLostError: one has.
            ConfigError: the store cannot be reached.
        """
        if self._lease is not None:
            self._lease.check()

    @contextlib.contextmanager
    def _locked(self, shared: bool) -> Iterator[None]:
        """Hold the lock of a folder on a disk, or the lease of one on an object store.

        A process that loses its lease ends at once, and its workers with it.
        """
        if not self.remote:
            lock = DiskLock(pathlib.Path(self.path))
            if shared:
                lock.share()
            with lock.held():
                yield
            return
        lease = Lease(self.path, disk_lock.end_process)
        lease.acquire()
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None
            with contextlib.suppress(ConfigError):  # it expires
                lease.release()

    def _remove_compiled(self) -> None:
        if self.compiled is not None:
            shutil.rmtree(self.compiled, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            saved = json.loads(paths.read(self.grid))
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"{self.grid} is damaged ({error}): give another folder with --out."
            ) from error
        return saved if isinstance(saved, dict) else {}


def _on_disk(folder: pathlib.Path) -> Iterable[str]:
    """The names in a folder on a disk; none, if there is no such folder."""
    try:
        if folder.is_dir():
            return os.listdir(folder)
        is_file = folder.exists()
    except OSError as error:
        raise ConfigError(
            f"{str(folder)[:60]!r}... cannot be a folder ({error.strerror}): give another with "
            "--out."
        ) from error
    if is_file:
        raise ConfigError(f"{folder} is a file: give a folder with --out.")
    return ()


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
