"""The output of a run's processes, which is a file in the folder of its grid."""

import contextlib
import logging
import pathlib
import tempfile
from typing import BinaryIO

from etils import epath

from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.files import check_target

_log = logging.getLogger(__name__)


class WorkerLog:
    """The file to which the process of a run writes its output.

    An object store cannot append to an object. The process writes to a local file, which `keep`
    uploads; what a run logs while it trains is also in its own folder, which is uploaded all along.

    Args:
        path: of the file, on a disk or on an object store.
        append: whether the file goes on, or is written anew.

    Raises:
        ConfigError: the path is not that of a regular file, or the store cannot be reached.
    """

    def __init__(self, path: epath.Path, *, append: bool = False):
        self._path, self._scratch = path, None
        self._file = pathlib.Path(path)
        if paths.is_remote(path):
            self._scratch = tempfile.TemporaryDirectory(prefix="miras-log-")
            self._file = pathlib.Path(self._scratch.name, path.name)
            with contextlib.suppress(FileNotFoundError):
                self._file.write_bytes(paths.read(path) if append else b"")
        check_target(self._file)
        self._append = append

    def open(self) -> BinaryIO:
        """The file, opened for the output of a process."""
        return self._file.open("ab" if self._append else "wb")

    def last_line(self) -> str:
        """The last line of the output, up to 300 characters."""
        lines = self._file.read_text("utf-8", errors="replace").strip().splitlines()
        return (lines or ["it printed nothing."])[-1].strip()[:300]

    def keep(self) -> None:
        """Upload the file if its grid is on an object store, once; a failure is a warning."""
        if self._scratch is None:
            return
        try:
            paths.write(self._path, self._file.read_bytes())
        except (ConfigError, OSError) as error:
            _log.warning("warning: %s was not kept: %s", self._path, error)
        self._scratch.cleanup()
        self._scratch = None
