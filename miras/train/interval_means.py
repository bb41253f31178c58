"""Means of the training metrics over a logging interval."""

import time

from miras.train.step import StepMetrics, Totals, bits_per_byte, nats_per_target


class IntervalMeans:
    """Accumulates the metrics of steps and measures the speed.

    Args:
        once: measurements that belong to the first interval alone, by name.
    """

    def __init__(self, **once: float):
        self.restart()
        self._once = once

    def restart(self) -> None:
        """Begin a new interval."""
        self._once = {}
        self._totals = Totals(0.0, 0.0, 0.0)
        self._norms: list[float] = []
        self._skipped: int | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure the speed from now on, after work other than training."""
        self._clock, self._timed = time.monotonic(), 0.0

    def add(self, metrics: StepMetrics, tokens: int) -> None:
        """Add the metrics of one step, on the host, and the number of tokens that it read."""
        new = metrics.totals
        self._totals = Totals(*(float(a) + float(b) for a, b in zip(self._totals, new)))
        self._norms.append(float(metrics.gradient_norm))
        self._skipped = None if metrics.window is None else int(metrics.window.skipped)
        self._timed += tokens

    def means(self) -> dict[str, float]:
        """The loss in nats per token, bits per byte, gradient norm, and tokens per second.

        The first interval also has what was given to the constructor.
        With `train.skip_spikes` also the number of updates that the run has skipped.
        """
        elapsed = max(time.monotonic() - self._clock, 1e-9)
        skipped = {} if self._skipped is None else {"skipped_updates": self._skipped}
        return {
            "loss": nats_per_target(self._totals),
            "bits_per_byte": bits_per_byte(self._totals),
            "gradient_norm": sum(self._norms) / max(len(self._norms), 1),
            "tokens_per_second": self._timed / elapsed,
            **self._once,
            **skipped,
        }
