"""The folder for temporary files of this process, which holds copies of runs on object stores.

It is removed when the process ends. A process that is killed leaves it, and the next process that
makes one removes it: a process holds a lock on a file in its folder for as long as it lives.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile

_START = "miras-run-"
_LOCK = "owner"


@functools.cache
def scratch() -> pathlib.Path:
    """The folder, in $TMPDIR."""
    _remove_abandoned()
    folder, owner = pathlib.Path(tempfile.mkdtemp(prefix=_START)), os.getpid()
    new = folder / "owner.new"
    fcntl.flock(os.open(new, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    new.rename(folder / _LOCK)

    def remove() -> None:
        if os.getpid() == owner:  # not in a forked process
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _remove_abandoned() -> None:
    for lock in pathlib.Path(tempfile.gettempdir()).glob(f"{_START}*/{_LOCK}"):
        with contextlib.suppress(OSError):  # of another user, or of a process that lives
            handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(handle)
