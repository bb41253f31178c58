"""Suppresses the output of Orbax on failures, which miras reports in one sentence.

After a damaged file or a full disk, Orbax logs tracebacks from its threads, leaves coroutines that
are never awaited, and lets tensorstore call into closed event loops. All of these repeat one
exception, which Orbax also raises.
"""

import contextlib
import gc
import logging
import sys
import time
import warnings
from collections.abc import Iterator

_GRACE = 0.2  # seconds for pending callbacks


@contextlib.contextmanager
def silence_orbax() -> Iterator[None]:
    """Suppress the logs of Orbax and asyncio, and errors of abandoned callbacks, in the block."""
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


def drain_callbacks() -> None:
    """Let the callbacks that a failure left behind end; call it within `silence_orbax`."""
    gc.collect()
    time.sleep(_GRACE)
