"""The lock of a folder on a disk: of this machine, or one that several hosts share.

    lock       locked by its writer, whose process id it holds
    writer/    of a shared folder: the leases of its writers, see `lease`

The operating system releases the lock when the process ends for any reason, so that a killed run
leaves no lock behind. A disk that several hosts share may have no locks between them, or keep that
of a host that was lost. So the writer of a shared folder also takes a lease, which decides: a lock
whose holder had a lease counts no longer than the lease.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

from etils import epath

from miras.errors import ConfigError
from miras.runtime.cluster import EXIT_LOST
from miras.runtime.files import check_target
from miras.train.runs.lease import InUseError, Lease, LeaseLostError

FILES = ("lock", "writer")
_LEASED = "lease"  # the mark of a holder that has a lease, in the lock file


class DiskLock:
    """The right to write to a folder on a disk.

    Args:
        folder: it need not exist.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._path, self._writers = (folder / name for name in FILES)
        self._lease: Lease | None = None

    def share(self) -> None:
        """Let several hosts write to the folder, one at a time: from now on writers take a lease.

        Raises:
            ConfigError: the folder cannot be written.
        """
        try:
            self._writers.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(cannot_write(self._folder, error)) from error

    def check(self) -> None:
        """Check that no other host has taken over the folder; it is of one host unless shared.

        Raises:
            LeaseLostError: one has.
        """
        if self._lease is not None:
            self._lease.check()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; the folder is created if it does not exist.

        A process that loses the lease of a shared folder ends at once, with code 75.

        Raises:
            InUseError: another process holds it.
            ConfigError: the folder cannot be written.
        """
        with self._leased(), self._locked():
            yield

    @contextlib.contextmanager
    def _leased(self) -> Iterator[None]:
        if not self._writers.is_dir():
            yield
            return
        lease = Lease(epath.Path(self._folder), end_process)
        try:
            lease.acquire()
        except OSError as error:
            raise ConfigError(cannot_write(self._writers, error)) from error
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None
            with contextlib.suppress(ConfigError, OSError):  # it expires
                lease.release()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            check_target(self._path)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise ConfigError(cannot_write(self._folder, error)) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._check_holder(handle, error)
            mark = "" if self._lease is None else f" {_LEASED}"
            try:
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}{mark}\n".encode(), 0)
            except OSError as error:
                raise ConfigError(cannot_write(self._path, error)) from error
            yield
        finally:
            os.close(handle)

    def _check_holder(self, handle: int, error: OSError) -> None:
        """Raise the error of a lock that was not given, unless the lease stands for it."""
        held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        process, *marks = _read_holder(handle).split()
        if self._lease is not None and (not held or _LEASED in marks):
            return  # a disk without locks, or the lock of a writer whose lease has expired
        if not held:
            raise ConfigError(cannot_write(self._path, error)) from error
        raise InUseError(
            f"{self._folder} is in use by the run of process {process}: wait until it ends, or "
            "give another folder with --out."
        ) from error


def cannot_write(path: pathlib.Path, error: OSError) -> str:
    """The error message for a path that cannot be written."""
    return (
        f"cannot write {path} ({error.strerror or error}): free space or make it writable, or "
        "give another folder with --out."
    )


def end_process(error: LeaseLostError) -> None:
    """End this process with code 75, before it writes to a folder that is another's."""
    with contextlib.suppress(OSError):
        os.write(2, f"miras: {error}\n".encode())
    os._exit(EXIT_LOST)


def _read_holder(handle: int) -> str:
    """The process id in a lock file, and its mark; its holder may be about to write them."""
    for _ in range(10):
        if text := os.pread(handle, 32, 0).decode(errors="replace").strip():
            return text
        time.sleep(0.01)
    return "unknown"
