"""A run folder on an object store, of which a process works on a local copy.

    URL/config.json, metrics.jsonl, loss.png, ...     as in a folder on a disk, written whole
    URL/checkpoints/STEP-EPOCH/...                    the files of a checkpoint
    URL/checkpoints/STEP.json                         its marker, written last
    URL/writer/EPOCH.json                             the lease of a writer, see `lease`

The local copy is in a folder for temporary files ($TMPDIR). Its writer uploads the files that have
changed every `FLUSH` seconds and when it ends; objects cannot be appended to. Orbax writes
checkpoints to the copy, since it cannot write to S3, and a thread uploads each complete one.

A checkpoint counts only with its marker, which names its folder, its files and their sizes. To
delete one, its marker is deleted first. Files without a marker are those of a writer that was
killed; the next writer deletes them. In the local copy, an empty folder stands for a checkpoint
until `fetch` downloads it.
"""

import atexit
import contextlib
import functools
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator

from etils import epath

from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.files import is_leftover, write_atomically
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.checkpoints.manifest import DamagedError
from miras.train.runs.lease import Lease, LeaseLostError

FLUSH = 15.0  # seconds between two uploads
_MARKER = re.compile(r"(0|[1-9][0-9]{0,17})\.json")
_PREFIX = re.compile(r"[0-9]{1,18}-([0-9]+)")
_FOLDERS = ("checkpoints", "writer")
_log = logging.getLogger(__name__)


class Mirror:
    """The local copy of a run folder on an object store.

    The constructor downloads the small files of the run, and what checkpoints there are.

    Args:
        url: of the folder.

    Attributes:
        url: of the folder.
        local: the copy; its last component is that of the URL.

    Raises:
        ConfigError: the store's library is not installed, or the store cannot be reached.
    """

    def __init__(self, url: str):
        self.url = paths.open_path(url.rstrip("/"))
        self.local = pathlib.Path(tempfile.mkdtemp(dir=_scratch())) / self.url.name
        self._checkpoints = self.local / "checkpoints"
        self._pushed: dict[str, tuple[int, int]] = {}  # time and size of a file, when uploaded
        self._committed: set[int] = set()  # steps of the checkpoints with a marker
        self._lease: Lease | None = None
        self._stop = threading.Event()
        self.refresh()

    def refresh(self) -> None:
        """Make the copy that of the store now.

        Raises:
            ConfigError: the store cannot be reached.
        """
        shutil.rmtree(self.local, ignore_errors=True)
        self.local.mkdir()
        self._pushed.clear()
        found = paths.entries(self.url)
        for name, is_folder in found.items():
            if "config.json" not in found and name not in _FOLDERS:
                (self.local / name).mkdir()  # of something else, but it is seen
            elif not is_folder:
                self._pull(name)
        for name, is_folder in paths.entries(self.url / "plugins").items():
            if not is_folder:
                self._pull(f"plugins/{name}")
        self._committed = self._markers()
        for step in self._committed:
            (self._checkpoints / str(step)).mkdir(parents=True)

    def fetch(self, step: int) -> None:
        """Download a checkpoint, unless it is here.

        Raises:
            DamagedError: files are missing or have other sizes than its marker says.
            ConfigError: the store cannot be reached.
        """
        target = self._checkpoints / str(step)
        if not target.is_dir() or any(target.iterdir()):
            return
        new = self.local / f"fetched_{step}"
        shutil.rmtree(new, ignore_errors=True)
        try:
            marker = json.loads(paths.read(self._marker(step)))
            names = {name: int(size) for name, size in marker["files"].items()}
            prefix = self.url / "checkpoints" / marker["prefix"]
            for name in names:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
            with paths.reaching(self.url):
                paths.file_system(self.url).get(
                    [os.fspath(prefix / name) for name in names],
                    [os.fspath(new / name) for name in names],
                )
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError("files of it are missing on the object store") from error
        for name, size in names.items():
            if (new / name).stat().st_size != size:
                raise DamagedError(f"{name} is not of the size that was written")
        target.rmdir()
        new.rename(target)

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Take the lease, and upload what changes within the block, and at its end.

        Raises:
            ConfigError: another process writes to the folder, it has taken it over, or the store
                cannot be reached.
        """
        self._lease = Lease(self.url)
        self._lease.acquire()
        thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        try:
            self.refresh()
            self._remove_uncommitted()
            thread.start()
            yield
        except BaseException as error:
            with contextlib.suppress(*[ConfigError] * isinstance(error, ConfigError)):
                self._end(thread)
            raise
        else:
            self._end(thread)
        finally:
            with contextlib.suppress(ConfigError):
                self._lease.release()
            self._lease = None

    def check(self) -> None:
        """Check that this process may write: the store answers so, or cannot be reached now.

        Raises:
            LeaseLostError: another process has taken over the folder.
        """
        assert self._lease is not None
        try:
            self._lease.check()
        except LeaseLostError:
            raise
        except ConfigError as error:
            _log.warning("warning: %s", error)

    def push(self) -> None:
        """Upload what has changed: files, then complete checkpoints, and delete those gone here.

        Raises:
            LeaseLostError: another process has taken over the folder; nothing is uploaded.
            ConfigError: the store cannot be reached.
        """
        assert self._lease is not None
        self._lease.check()
        for path in sorted(self._files()):
            self._push_file(path)
        steps = set(saved_steps(self._checkpoints))
        for step in sorted(steps - self._committed):
            self._push_checkpoint(step)
        for step in sorted(self._committed - steps):
            self._delete_checkpoint(step)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH):
            try:
                self.push()
            except LeaseLostError:
                return
            except (ConfigError, OSError) as error:  # repeated at the next flush, and at the end
                _log.warning("warning: %s is not up to date: %s", self.url, error)

    def _end(self, thread: threading.Thread) -> None:
        self._stop.set()
        if thread.ident is not None:
            thread.join()
        self.push()

    def _files(self) -> Iterator[pathlib.Path]:
        """The files of the copy but those of checkpoints."""
        for folder, folders, names in os.walk(self.local):
            if folder == str(self.local):
                folders[:] = [f for f in folders if f not in _FOLDERS and "fetched_" not in f]
            for name in names:
                path = pathlib.Path(folder, name)
                if path.is_file() and not path.is_symlink() and not is_leftover(name):
                    yield path

    def _push_file(self, path: pathlib.Path) -> None:
        name = path.relative_to(self.local).as_posix()
        with contextlib.suppress(FileNotFoundError):  # removed since
            stat = _stat(path)
            if self._pushed.get(name) != stat:
                paths.write(self.url / name, path.read_bytes())
                self._pushed[name] = stat

    def _pull(self, name: str) -> None:
        path = self.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, paths.read(self.url / name))
        self._pushed[name] = _stat(path)

    def _push_checkpoint(self, step: int) -> None:
        assert self._lease is not None
        folder = self._checkpoints / str(step)
        prefix = f"{step}-{self._lease.epoch}"
        target = self.url / "checkpoints" / prefix
        try:
            sizes = {
                path.relative_to(folder).as_posix(): path.stat().st_size
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            with paths.reaching(self.url):
                paths.file_system(self.url).put(
                    [str(folder / name) for name in sizes],
                    [os.fspath(target / name) for name in sizes],
                )
        except FileNotFoundError:
            if folder.is_dir():
                raise
            return  # deleted while it was uploaded, as newer ones are complete
        self._lease.check()
        marker = {"prefix": prefix, "files": sizes}
        paths.write(self._marker(step), json.dumps(marker, indent=1) + "\n")
        self._committed.add(step)

    def _delete_checkpoint(self, step: int) -> None:
        """Delete a checkpoint, or keep it under another name if it is damaged."""
        content = paths.read(self._marker(step))
        damaged = any(self._checkpoints.glob(f"{step}.damaged*"))
        if damaged:
            paths.write(self.url / "checkpoints" / f"{step}.damaged.json", content)
        paths.remove(self._marker(step))
        if not damaged:
            paths.remove(self.url / "checkpoints" / json.loads(content)["prefix"])
        self._committed.discard(step)

    def _remove_uncommitted(self) -> None:
        """Delete the folders of checkpoints that no marker names."""
        assert self._lease is not None
        folder = self.url / "checkpoints"
        found = paths.entries(folder)
        named = set()
        for name in found:
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                    named.add(json.loads(paths.read(folder / name))["prefix"])
        for name in found:
            match = _PREFIX.fullmatch(name)
            if match and name not in named and int(match[1]) < self._lease.epoch:
                paths.remove(folder / name)

    def _markers(self) -> set[int]:
        found = map(_MARKER.fullmatch, paths.entries(self.url / "checkpoints"))
        return {int(match[1]) for match in found if match}

    def _marker(self, step: int) -> epath.Path:
        return self.url / "checkpoints" / f"{step}.json"


def _stat(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@functools.cache
def _scratch() -> str:
    """The folder of this process's copies, which is removed when the process ends."""
    folder, owner = tempfile.mkdtemp(prefix="miras-run-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a forked process
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
