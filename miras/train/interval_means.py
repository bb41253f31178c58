"""Means of the training metrics over a logging interval, and how fast it was."""

import time
from typing import Any, NamedTuple

import jax

from miras.train.step import StepMetrics, Totals, bits_per_byte, nats_per_target


class Utilization(NamedTuple):
    """What the model FLOPs utilisation (2204.02311, appendix B) is computed from.

    Attributes:
        step_flops: model FLOPs of an update: forward and backward, without recomputation.
        peak: FLOP/s of a device.
    """

    step_flops: float
    peak: float


class IntervalMeans:
    """Accumulates the metrics of steps and measures the speed.

    Args:
        devices: of the run.
        utilization: None leaves out the model FLOPs utilisation.
        once: measurements that belong to the first interval alone, by name.
    """

    def __init__(self, devices: int = 1, utilization: Utilization | None = None, **once: float):
        self._devices, self._utilization = devices, utilization
        self.restart()
        self._once = once

    def restart(self) -> None:
        """Begin a new interval."""
        self._once = {}
        self._totals = Totals(0.0, 0.0, 0.0)
        self._norms: list[float] = []
        self._skipped: int | None = None
        self._data = self._checkpoint = 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure the speed from now on, after work other than training."""
        self._clock, self._tokens, self._steps, self._device = time.monotonic(), 0, 0, 0.0

    def add(self, metrics: StepMetrics, tokens: int, waited: float = 0.0) -> None:
        """Add one step.

        Args:
            metrics: on the host.
            tokens: that it read.
            waited: seconds for which the host waited for the devices to end it.
        """
        new = metrics.totals
        self._totals = Totals(*(float(a) + float(b) for a, b in zip(self._totals, new)))
        self._norms.append(float(metrics.gradient_norm))
        self._skipped = None if metrics.window is None else int(metrics.window.skipped)
        self._tokens += tokens
        self._steps += 1
        self._device += waited

    def add_data(self, seconds: float) -> None:
        """Add the seconds for which the host waited for batches."""
        self._data += seconds

    def add_checkpoint(self, seconds: float) -> None:
        """Add the seconds for which the run waited for a checkpoint."""
        self._checkpoint += seconds

    def means(self) -> dict[str, float]:
        """The measurements of the interval; docs/operate.md has their names and units."""
        elapsed = max(time.monotonic() - self._clock, 1e-9)
        speed = self._tokens / elapsed
        values = {
            "loss": nats_per_target(self._totals),
            "gradient_norm": sum(self._norms) / max(len(self._norms), 1),
            "tokens_per_second": speed,
            "tokens_per_second_per_device": speed / self._devices,
            "steps": len(self._norms),
            "data_wait_seconds": self._data,
            "checkpoint_seconds": self._checkpoint,
        }
        if self._totals.bytes or not self._totals.targets:  # otherwise, targets are not text
            values["bits_per_byte"] = bits_per_byte(self._totals)
        if self._skipped is not None:
            values["skipped_updates"] = self._skipped
        if self._steps:
            values["step_seconds"] = elapsed / self._steps
            if self._utilization is not None:
                done = self._utilization.step_flops * self._steps / elapsed
                values["model_flops_utilization"] = done / self._devices / self._utilization.peak
        return values | device_memory() | self._once

    @property
    def host_seconds(self) -> float:
        """Seconds of a step in which the host did not wait for the devices."""
        elapsed = time.monotonic() - self._clock
        return max(0.0, elapsed - self._device) / max(self._steps, 1)


def device_memory() -> dict[str, float]:
    """Bytes in use and at their peak, of the fullest device of this process.

    Empty where the backend does not say, as on CPUs. It waits for no device.
    """
    stats: list[Any] = [device.memory_stats() or {} for device in jax.local_devices()]
    names = {"memory_bytes": "bytes_in_use", "peak_memory_bytes": "peak_bytes_in_use"}
    return {
        name: max(found[key] for found in stats)
        for name, key in names.items()
        if all(key in found for found in stats)
    }
