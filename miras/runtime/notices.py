"""Prints what the library logs while a command runs, each line once."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from miras.runtime import processes

_LOGS = ("miras.data", "miras.train", "miras.config.trust", "miras.analysis.strength")


class _Notices(logging.Handler):
    """Prints each line once, in process 0, and ignores a closed stream.

    Warnings go to stderr and everything else to stdout, so that a command that fails prints only
    its error and warnings on stderr.
    """

    def __init__(self) -> None:
        super().__init__()
        self._printed = set()

    def emit(self, record: logging.LogRecord) -> None:
        if not processes.first():
            return
        line = " ".join(record.getMessage().split())
        if line not in self._printed:
            self._printed.add(line)
            with contextlib.suppress(OSError, ValueError):
                stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
                print("miras:", line, file=stream, flush=True)


@contextlib.contextmanager
def notices() -> Iterator[None]:
    """Print what miras logs within the block, such as which files were read or left out.

    Of several processes, only process 0 prints.
    """
    handler = _Notices()
    with contextlib.ExitStack() as stack:
        for name in _LOGS:
            log = logging.getLogger(name)
            stack.callback(_restore, log, handler, log.level, log.propagate)
            log.addHandler(handler)
            log.setLevel(logging.INFO)
            log.propagate = False  # a root logger that a library set up would print it again
        yield


def _restore(log: logging.Logger, handler: logging.Handler, level: int, propagate: bool) -> None:
    log.setLevel(level)
    log.propagate = propagate
    log.removeHandler(handler)
