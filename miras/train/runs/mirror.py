"""A run folder on an object store, of which a process works on a local copy.

    URL/config.json, metrics.jsonl, loss.png, ...     as in a folder on a disk, written whole
    URL/checkpoints/...                               see `stored_checkpoints`
    URL/writer/EPOCH.json                             the lease of a writer, see `lease`

The local copy is in a folder for temporary files ($TMPDIR). Its writer uploads the files that have
changed every `FLUSH` seconds and when it ends; objects cannot be appended to. Orbax writes
checkpoints to the copy, since it cannot write to S3, and a thread uploads each complete one.

Each of several processes has a copy of its own, and uploads what it has written there.
"""

import contextlib
import logging
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator

from miras.errors import ConfigError
from miras.runtime import paths, processes
from miras.runtime.files import is_leftover, write_atomically
from miras.train.runs.lease import Lease, LeaseLostError
from miras.train.runs.scratch import scratch
from miras.train.runs.stored_checkpoints import StoredCheckpoints

FLUSH = 15.0  # seconds between two uploads
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
        self.local = pathlib.Path(tempfile.mkdtemp(dir=scratch())) / self.url.name
        self._checkpoints = self.local / "checkpoints"
        self._pushed: dict[str, tuple[int, int]] = {}  # time and size of a file, when uploaded
        self._stored = StoredCheckpoints(self.url / "checkpoints", self._checkpoints)
        self._lease: Lease | None = None
        self._pushing = threading.Lock()  # held while the store or the copy is changed
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
        self._stored.find()

    def fetch(self, step: int) -> None:
        """As `StoredCheckpoints.fetch`."""
        self._stored.fetch(step)

    def empty(self, step: int) -> None:
        """As `StoredCheckpoints.empty`."""
        with self._pushing:
            self._stored.empty(step)

    def set_aside(self, steps: Iterable[int]) -> None:
        """As `StoredCheckpoints.set_aside`."""
        with self._pushing:
            self._stored.set_aside(steps)

    @contextlib.contextmanager
    def written(self, joined: tuple[int, str] | None = None) -> Iterator[tuple[int, str]]:
        """Take the lease, and upload what changes within the block, and at its end.

        Args:
            joined: in the other processes of a run, what process 0 has yielded; the lease is its.

        Yields:
            The epoch and the token of the lease.

        Raises:
            ConfigError: another process writes to the folder, it has taken it over, or the store
                cannot be reached.
        """
        lease = Lease(self.url)
        if joined is None:
            lease.acquire()
        else:
            lease.join(*joined)
        self._lease = lease
        thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        try:
            self.refresh()
            if joined is None:
                self._stored.delete_uncommitted(lease.epoch)
            thread.start()
            yield lease.epoch, lease.token
        except BaseException as error:
            with contextlib.suppress(*[ConfigError] * isinstance(error, ConfigError)):
                self._end(thread, joined is not None)
            raise
        else:
            self._end(thread, joined is not None)
        finally:
            if joined is None:
                with contextlib.suppress(ConfigError):
                    lease.release()
            self._lease = None

    def check(self) -> None:
        """Check that this process may write: the store answers so, or cannot be reached now.

        Raises:
            LeaseLostError: another process has taken over the folder.
        """
        assert self._lease is not None
        with self._warning():
            self._lease.check()

    def push(self) -> None:
        """Upload what has changed: files, then complete checkpoints, and delete those gone here.

        Raises:
            LeaseLostError: another process has taken over the folder; nothing is uploaded.
            ConfigError: the store cannot be reached.
        """
        assert self._lease is not None
        with self._pushing:
            self._lease.check()
            for path in sorted(self._files()):
                self._push_file(path)
            self._stored.upload(self._lease.epoch)
            if processes.first():
                self._lease.check()
                self._stored.commit(self._lease.epoch)
                self._stored.delete_gone(self._lease.epoch)

    def complete(self, last: bool = False) -> None:
        """Upload the checkpoints that all processes have saved; all must call it, between saves.

        The local files of those that then have a marker are deleted.

        Args:
            last: no save follows, so that a store that cannot be reached is an error.

        Raises:
            LeaseLostError: another process has taken over the folder.
            ConfigError: `last`, and the store cannot be reached.
        """

        def push() -> list[int]:
            with contextlib.nullcontext() if last else self._warning():
                self.push()
            return sorted(self._stored.committed)

        processes.together(push)
        committed = processes.decide(push)  # now that all others have uploaded theirs
        for step in committed:
            self.empty(step)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH):
            try:
                self.push()
            except LeaseLostError:
                return
            except (ConfigError, OSError) as error:  # repeated at the next flush, and at the end
                _log.warning("warning: %s is not up to date: %s", self.url, error)

    def _end(self, thread: threading.Thread, joined: bool) -> None:
        self._stop.set()
        if thread.ident is not None:
            thread.join()
        # The next run may have begun, once process 0 has ended; only logs are left then.
        with contextlib.suppress(*[LeaseLostError] * joined):
            self.push()

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        """Let a store that cannot be reached be no error, but a warning."""
        try:
            yield
        except LeaseLostError:
            raise
        except ConfigError as error:
            _log.warning("warning: %s", error)

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


def _stat(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
