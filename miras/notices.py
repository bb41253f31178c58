"""What the library logs while a command runs: on the error stream, each line once."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TextIO

_LOGS = ("miras.data", "miras.train", "miras.trust")


class _Notices(logging.Handler):
    """Writes each line once; a stream that is closed loses it and stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream, self._said = stream, set()

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        if line not in self._said:
            self._said.add(line)
            with contextlib.suppress(OSError, ValueError):
                print("miras:", line, file=self._stream, flush=True)


@contextlib.contextmanager
def notices() -> Iterator[None]:
    """Says what parts of miras log, such as which files were read and which were left out."""
    handler = _Notices(sys.stderr)
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
