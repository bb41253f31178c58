"""What the library logs while a command runs, each line once."""

import contextlib
import logging
import sys
from collections.abc import Iterator

_LOGS = ("miras.data", "miras.train", "miras.config.trust")


class _Notices(logging.Handler):
    """Writes each line once; a stream that is closed loses it and stops nothing.

    Warnings go to the error stream, all else to the output, so that a command that is refused has
    one sentence on the error stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        if line not in self._said:
            self._said.add(line)
            with contextlib.suppress(OSError, ValueError):
                stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
                print("miras:", line, file=stream, flush=True)


@contextlib.contextmanager
def notices() -> Iterator[None]:
    """Says what parts of miras log, such as which files were read and which were left out."""
    handler = _Notices()
    with contextlib.ExitStack() as stack:
        for name in _LOGS:
            log = logging.getLogger(name)
            stack.callback(_restore, log, handler, log.level, log.propagate)
            log.addHandler(handler)
            log.setLevel(logging.INFO)
            log.propagate = False  # the root logger, if a library set it up, would say it again
        yield


def _restore(log: logging.Logger, handler: logging.Handler, level: int, propagate: bool) -> None:
    log.setLevel(level)
    log.propagate = propagate
    log.removeHandler(handler)
