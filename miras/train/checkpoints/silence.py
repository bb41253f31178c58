"""Keep what Orbax tells of a failure off the terminal: it is told in our own sentence.

A damaged file or a full disk makes Orbax log tracebacks from its threads, leave coroutines behind,
and let tensorstore call back into event loops that are closed. All of it repeats one exception,
which Orbax also raises.
"""

import contextlib
import gc
import logging
import sys
import time
import warnings
from collections.abc import Iterator

_GRACE = 0.2  # seconds for callbacks that are under way


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of what Orbax's and asyncio's loggers and abandoned callbacks say."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    hook = sys.unraisablehook

    def reject(record: logging.LogRecord) -> bool:
        del record
        return False

    def pass_on(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    for logger in loggers:
        logger.addFilter(reject)
    sys.unraisablehook = pass_on
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeFilter(reject)


def settle() -> None:
    """After a failure, let what was left behind end while it is quiet."""
    gc.collect()
    time.sleep(_GRACE)
