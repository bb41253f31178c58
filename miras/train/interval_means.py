"""Means over the steps between two lines of the logs."""

import time

from miras.train.step import Measured, Totals, bits_per_byte, nats_per_target


class Window:
    """Adds up what steps measured, and times them."""

    def __init__(self):
        self._totals = Totals(0.0, 0.0, 0.0)
        self._norms: list[float] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Tell the speed from here on, as what came before was not training alone."""
        self._clock, self._timed = time.monotonic(), 0.0

    def add(self, measured: Measured, tokens: int) -> None:
        """Add one step that is done, its arrays on the host, which read so many tokens."""
        new = measured.totals
        self._totals = Totals(*(float(a) + float(b) for a, b in zip(self._totals, new)))
        self._norms.append(float(measured.gradient_norm))
        self._timed += tokens

    def means(self) -> dict[str, float]:
        """Loss in nats per token, bits per byte, gradient norm, and tokens per second."""
        elapsed = max(time.monotonic() - self._clock, 1e-9)
        return {
            "loss": nats_per_target(self._totals),
            "bits_per_byte": bits_per_byte(self._totals),
            "gradient_norm": sum(self._norms) / max(len(self._norms), 1),
            "tokens_per_second": self._timed / elapsed,
        }
