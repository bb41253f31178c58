"""The loggers of a run, none of which can stop it."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from miras.train.loggers.base import Logger, LoggerContext


class Loggers:
    """The loggers of a run, in process 0.

    A logger that raises is dropped with a warning, and the run continues.

    Args:
        classes: of the loggers, by name; see `registry.find`.
        context: the argument of their constructors.
        warn: called with one line for each logger that fails.
    """

    def __init__(
        self,
        classes: Mapping[str, Callable[[LoggerContext], Logger]],
        context: LoggerContext,
        warn: Callable[[str], Any],
    ):
        self._warn = warn
        self._loggers: dict[str, Logger] = {}
        for name, cls in classes.items() if jax.process_index() == 0 else ():
            with self._guard(name):
                self._loggers[name] = cls(context)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Pass one measurement to each logger, as `Logger.write`."""
        for name, logger in list(self._loggers.items()):
            with self._guard(name):
                logger.write(step, kind, values)

    def close(self) -> None:
        """Close each logger."""
        for name, logger in list(self._loggers.items()):
            with self._guard(name):
                logger.close()
        self._loggers.clear()

    @contextlib.contextmanager
    def _guard(self, name: str):
        try:
            yield
        except Exception as error:
            self._loggers.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._warn(f"warning: logger {name} failed ({reason}); the run continues without it.")
