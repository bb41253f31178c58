"""What the library logs while a command runs: on the error stream, each line once."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TextIO


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
    """Says what `miras.data` logs: which files were read and which were left out."""
    log, handler = logging.getLogger("miras.data"), _Notices(sys.stderr)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # a library may have set up the root logger, which would say it again
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate = before[1]
        log.removeHandler(handler)
