"""What a run measures of itself while it trains. Nothing here waits for a device."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from miras.runtime import processes
from miras.train import hosts
from miras.train.alarms import Alarms
from miras.train.goodput import WallTime, share
from miras.train.interval_means import IntervalMeans
from miras.train.loggers.loggers import Loggers
from miras.train.prefetch import Waited
from miras.train.progress import Reporter
from miras.train.spikes import skipped_warning
from miras.train.step import StepMetrics


class Meter:
    """Measures the steps of a process, and logs their means.

    Args:
        means: of the current logging interval.
        wall: of the run.
        alarms: of the memories.
        loggers: where means are logged.
        reporter: where they are printed.
        bits: whether bits per byte mean anything.
    """

    def __init__(
        self,
        means: IntervalMeans,
        wall: WallTime,
        alarms: Alarms,
        loggers: Loggers,
        reporter: Reporter,
        bits: bool,
    ):
        self._means, self._wall, self._bits = means, wall, bits
        self._alarms, self._loggers, self._reporter = alarms, loggers, reporter

    def step(self, step: int, metrics: StepMetrics, waited: float) -> None:
        """Add a step.

        Args:
            step: its number.
            metrics: on the host.
            waited: seconds for which the host waited for it.
        """
        self._means.add(metrics, int(metrics.tokens), waited)
        warning = skipped_warning(step, float(metrics.gradient_norm), metrics.window)
        if warning is not None:
            self._reporter.warn(warning)
        self._reporter.step(step)

    def data(self, waited: Waited) -> None:
        """Add the time that the batches of a step took."""
        self._means.add_data(waited.seconds)
        self._wall.move(waited.idle, "data")

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Measure the time within the block as that of a checkpoint."""
        start = time.monotonic()
        with self._wall.spending("checkpoint"):
            yield
        self._means.add_checkpoint(time.monotonic() - start)

    def log(self, step: int, rate: float) -> None:
        """Log the means of the interval that ends with a step, and begin another.

        Args:
            step: its number.
            rate: its learning rate.
        """
        seconds = self._wall.seconds()
        values = self._means.means() | {"learning_rate": rate, "goodput": share(seconds)}
        hosts.publish(self._means.host_seconds)
        slowest = hosts.slowest() if processes.first() else None
        host = {} if slowest is None else {"slowest_host": slowest._asdict()}
        self._loggers.write(step, "train", values | host | {"seconds": seconds})
        self._reporter.print_means(step, values, self._bits)
        self._means.restart()

    def health(self, step: int, health: Mapping[str, Any]) -> None:
        """Log a measurement of the memories, and warn of those that are out of bounds."""
        self._loggers.write(step, "health", health)
        for warning in self._alarms.check(step, health):
            self._reporter.warn(warning)

    def resume(self) -> None:
        """Measure the speed from now on, after work other than training."""
        self._means.restart_clock()
