"""The checkpoints of a run folder on an object store, and the local copies of them.

    URL/checkpoints/STEP-EPOCH/...          the files of a checkpoint of one process
    URL/checkpoints/STEP-EPOCH/I/...        the files that process I of several has written
    URL/checkpoints/STEP-EPOCH/I.json       their sizes, written once all of them are there
    URL/checkpoints/STEP.json               the marker, written last

EPOCH is the number of the writer (`lease`), so that only one run ever writes to a folder.

A checkpoint counts only with its marker, which names its folder, its files and their sizes. To
delete one, its marker is deleted first. Files without a marker are those of a writer that was
killed; the next writer deletes them. An empty local folder stands for a checkpoint of which nothing
is here.

Each of several processes saves the shards of its devices to its own disk (`orbax_processes`)
and uploads them. The checkpoint is the union of these folders; a file of metadata that several of
them have is read from the first. Process 0 writes the marker once the sizes of all others are
there, so that uploads need no collective and happen in the background.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable
from typing import Any

from etils import epath

from miras.runtime import paths, processes
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.checkpoints.manifest import DamagedError

_MARKER = re.compile(r"(0|[1-9][0-9]{0,17})\.json")
_PREFIX = re.compile(r"[0-9]{1,18}-([0-9]+)")


class StoredCheckpoints:
    """The checkpoints below a URL, and their copies in a local folder.

    Args:
        url: of the folder `checkpoints`.
        local: the folder of the copies.

    Attributes:
        committed: the steps of the checkpoints with a marker, as far as this process knows.
        uploaded: the sizes of the files that this process has uploaded, by step, of the checkpoints
            that have no marker yet.
    """

    def __init__(self, url: epath.Path, local: pathlib.Path):
        self._url, self._local = url, local
        self.committed: set[int] = set()
        self.uploaded: dict[int, dict[str, int]] = {}

    def find(self) -> None:
        """Make an empty folder for each checkpoint of the store."""
        found = map(_MARKER.fullmatch, paths.entries(self._url))
        self.committed, self.uploaded = {int(match[1]) for match in found if match}, {}
        for step in self.committed:
            (self._local / str(step)).mkdir(parents=True)

    def fetch(self, step: int) -> None:
        """Download a checkpoint, unless it is here.

        Raises:
            DamagedError: files are missing or have other sizes than its marker says.
            ConfigError: the store cannot be reached.
        """
        target = self._local / str(step)
        if not target.is_dir() or any(target.iterdir()):
            return
        new = self._local.parent / f"fetched_{step}"
        shutil.rmtree(new, ignore_errors=True)
        try:
            marker = json.loads(paths.read(self._marker(step)))
            sources = _sources(marker)
            for name in sources:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
            prefix = self._url / marker["prefix"]
            with paths.reaching(self._url):
                paths.file_system(self._url).get(
                    [os.fspath(prefix / stored) for stored, _ in sources.values()],
                    [os.fspath(new / name) for name in sources],
                )
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError("files of it are missing on the object store") from error
        for name, (_, size) in sources.items():
            if (new / name).stat().st_size != size:
                raise DamagedError(f"{name} is not of the size that was written")
        target.rmdir()
        new.rename(target)

    def empty(self, step: int) -> None:
        """Delete the local files of a checkpoint that has a marker."""
        folder = self._local / str(step)
        if folder.is_dir():
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.committed.add(step)
        self.uploaded.pop(step, None)

    def set_aside(self, steps: Iterable[int]) -> None:
        """Keep damaged checkpoints under other names, so that their steps can be saved again.

        All processes must call it; process 0 changes the store.

        Raises:
            ConfigError: the store cannot be reached.
        """
        for step in self.committed.intersection(steps):
            if processes.first():
                marker = self._marker(step)
                paths.write(self._url / f"{step}.damaged.json", paths.read(marker))
                paths.remove(marker)
            self.committed.discard(step)

    def upload(self, epoch: int) -> None:
        """Upload this process's files of the complete local checkpoints.

        A checkpoint that is deleted meanwhile, since newer ones are complete, is left out.

        Args:
            epoch: of the writer.

        Raises:
            ConfigError: the store cannot be reached.
        """
        for step in saved_steps(self._local):
            if step in self.committed or step in self.uploaded:
                continue
            folder = self._local / str(step)
            try:
                sizes = _sizes(folder)
                self._upload(folder, sizes, self._prefix(step, epoch))
            except FileNotFoundError:
                if folder.is_dir():
                    raise
            else:
                self.uploaded[step] = sizes

    def commit(self, epoch: int) -> None:
        """Write the markers of the checkpoints that all processes have uploaded, in process 0.

        Raises:
            ConfigError: the store cannot be reached.
        """
        for step, files in sorted(self.uploaded.items()):
            prefix = self._prefix(step, epoch)
            marker: dict[str, Any] = {"prefix": prefix.name}
            if processes.count() == 1:
                marker["files"] = files
            else:
                there = paths.entries(prefix)
                others = [f"{number}.json" for number in range(1, processes.count())]
                if not all(name in there for name in others):
                    continue
                marker["parts"] = [files, *(json.loads(paths.read(prefix / n)) for n in others)]
            paths.write(self._marker(step), json.dumps(marker, indent=1) + "\n")
            self.committed.add(step)
            del self.uploaded[step]

    def delete_gone(self, epoch: int) -> None:
        """Delete what is gone here, in process 0, if the newest checkpoint here has a marker.

        Raises:
            ConfigError: the store cannot be reached.
        """
        steps = saved_steps(self._local)
        if steps and steps[-1] not in self.committed:
            return
        for step in sorted(self.committed.difference(steps)):
            self._delete(step)
        for step in sorted(self.uploaded.keys() - set(steps)):  # some process uploaded none of it
            paths.remove(self._prefix(step, epoch))
            del self.uploaded[step]

    def delete_uncommitted(self, epoch: int) -> None:
        """Delete the folders of writers before `epoch` that no marker names.

        Raises:
            ConfigError: the store cannot be reached.
        """
        found = paths.entries(self._url)
        named = set()
        for name in found:
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                    named.add(json.loads(paths.read(self._url / name))["prefix"])
        for name in found:
            match = _PREFIX.fullmatch(name)
            if match and name not in named and int(match[1]) < epoch:
                paths.remove(self._url / name)

    def _upload(self, folder: pathlib.Path, sizes: dict[str, int], prefix: epath.Path) -> None:
        """Upload this process's files of a checkpoint.

        Raises:
            FileNotFoundError: some are deleted meanwhile.
            ConfigError: the store cannot be reached.
        """
        target = prefix if processes.count() == 1 else prefix / str(processes.index())
        with paths.reaching(self._url):
            paths.file_system(self._url).put(
                [str(folder / name) for name in sizes],
                [os.fspath(target / name) for name in sizes],
            )
        if _sizes(folder) != sizes:
            raise FileNotFoundError(folder)
        if not processes.first():
            paths.write(prefix / f"{processes.index()}.json", json.dumps(sizes) + "\n")

    def _delete(self, step: int) -> None:
        prefix = json.loads(paths.read(self._marker(step)))["prefix"]
        paths.remove(self._marker(step))
        paths.remove(self._url / prefix)
        self.committed.discard(step)

    def _marker(self, step: int) -> epath.Path:
        return self._url / f"{step}.json"

    def _prefix(self, step: int, epoch: int) -> epath.Path:
        return self._url / f"{step}-{epoch}"


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    """The sizes of the files of a folder, by their names in it."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _sources(marker: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """The stored name and the size of each file of a checkpoint, by its local name."""
    if "parts" not in marker:
        return {name: (name, int(size)) for name, size in marker["files"].items()}
    found: dict[str, tuple[str, int]] = {}
    for number, part in enumerate(marker["parts"]):
        for name, size in part.items():
            found.setdefault(name, (f"{number}/{name}", int(size)))
    return found
