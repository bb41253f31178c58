"""A watchdog: ends a process whose steps no longer end, after it has written where it hangs.

A collective waits for ever for a process that is stuck, so that a run on many hosts would hang in
silence. The watchdog writes the Python stacks of all threads and ends the process; the scheduler
then starts the run again, which resumes from its last checkpoint.
"""

import contextlib
import faulthandler
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EXIT_STUCK = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed if it is repeated
_TICK = 1.0  # seconds


class Watchdog:
    """Ends the process if two calls of `beat` are more than `minutes` apart; a context manager.

    It starts with the first `beat`, so that the compilation before it takes any time. Its clock
    stands still while the process is stopped (Ctrl-Z) or the machine sleeps.

    Args:
        minutes: the time limit, > 0; None is no limit.
        file: where the stacks are written, besides stderr.
        what: the work, for the message.
    """

    def __init__(self, minutes: float | None, file: pathlib.Path, what: str):
        self._limit = None if minutes is None else 60 * minutes
        self._file, self._what = file, what
        self._silent: float | None = None  # seconds since the last beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._limit is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._limit is not None:
            self._thread.join()

    def beat(self) -> None:
        """Say that a step has ended."""
        self._silent = 0.0

    def over(self, work: Iterable[T]) -> Iterator[T]:
        """The items of some work, each of which counts as a step."""
        for item in work:
            if self._silent is not None:
                self.beat()
            yield item

    def _watch(self) -> None:
        assert self._limit is not None
        tick = min(_TICK, self._limit / 4)
        before = time.monotonic()
        while not self._stop.wait(tick):
            now = time.monotonic()
            if self._silent is not None:
                self._silent += min(now - before, 2 * tick)  # less while the process was stopped
                if self._silent > self._limit:
                    self._end()
            before = now

    def _end(self) -> None:
        line = (
            f"miras: no step of {self._what} has ended within {(self._limit or 0) / 60:g} minutes "
            f"(train.watchdog_minutes): the stacks of all threads are below and in {self._file}; "
            f"the process ends with code {EXIT_STUCK}, and the same command resumes the run."
        )
        with contextlib.suppress(Exception), self._file.open("w", encoding="utf-8") as file:
            print(line, file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)
        with contextlib.suppress(Exception):
            os.write(2, f"{line}\n".encode())
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        os._exit(EXIT_STUCK)
