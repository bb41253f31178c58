"""Goodput: the share of a run's wall time in which its devices did steps that count.

Every moment of a process belongs to one reason:

    start       until the first step: imports after `train` is called, data, restoring a checkpoint
    compile     compilation of the step
    steps       steps, with the host's work that is hidden behind them
    data        the devices had nothing to do, since the next batches were not ready
    evaluate    held-out text and health, with their compilation
    checkpoint  saving, as far as the run waits for it

and over restarts also to

    lost        steps after the checkpoint from which the run resumed, which are done again
    stopped     between the last line of `metrics.jsonl` and the next start

The seconds of each since the run began are in the lines of `metrics.jsonl`, from which a resumed
run takes them over before it removes the lines of lost steps.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Seconds = dict[str, float]


class WallTime:
    """Adds up wall time by reason; the reason is "start" at first.

    Args:
        before: seconds of earlier processes of the run, by reason.
    """

    def __init__(self, before: Mapping[str, float] | None = None):
        self._seconds = dict(before or {})
        self._reason, self._since = "start", time.monotonic()

    def carry(self, before: Mapping[str, float]) -> None:
        """Add the seconds of earlier processes."""
        for reason, seconds in before.items():
            self._add(reason, seconds)

    def switch(self, reason: str) -> str:
        """Spend the time from now on for a reason; returns the one before."""
        now = time.monotonic()
        before = self._reason
        self._add(before, now - self._since)
        self._reason, self._since = reason, now
        return before

    @contextlib.contextmanager
    def spending(self, reason: str) -> Iterator[None]:
        """Spend the time within the block for a reason."""
        before = self.switch(reason)
        try:
            yield
        finally:
            self.switch(before)

    def move(self, seconds: float, to: str) -> None:
        """Count seconds that were just spent for another reason."""
        self._add(self._reason, -seconds)
        self._add(to, seconds)

    def seconds(self) -> Seconds:
        """Seconds of each reason since the run began."""
        self.switch(self._reason)
        return dict(self._seconds)

    def _add(self, reason: str, seconds: float) -> None:
        self._seconds[reason] = self._seconds.get(reason, 0.0) + seconds


def share(seconds: Mapping[str, float]) -> float:
    """The goodput, in [0, 1]: the share of `steps`; 0 before any time has passed."""
    return seconds.get("steps", 0.0) / max(sum(seconds.values()), 1e-9)


def carried(lines: Sequence[Mapping[str, Any]], step: int, now: float) -> Seconds:
    """The seconds of a run's earlier processes, as it resumes.

    Args:
        lines: of `metrics.jsonl`, those of lost steps included; see `read_metrics`.
        step: of the checkpoint from which the run resumes.
        now: Unix time at which this process began.

    Returns:
        Seconds by reason; empty if the lines have none.
    """
    timed = [line for line in lines if isinstance(line.get("seconds"), dict)]
    if not timed:
        return {}
    last = timed[-1]
    seconds: Seconds = dict(last["seconds"])
    lost = max(0.0, seconds.get("steps", 0.0) - _steps_until(timed, step))
    seconds["steps"] = seconds.get("steps", 0.0) - lost
    seconds["lost"] = seconds.get("lost", 0.0) + lost
    seconds["stopped"] = seconds.get("stopped", 0.0) + max(0.0, now - last.get("time", now))
    return seconds


def _steps_until(lines: Sequence[Mapping[str, Any]], step: int) -> float:
    """Seconds in the steps up to one, interpolated between the lines around it."""
    points = {line["step"]: line["seconds"].get("steps", 0.0) for line in lines}
    below = max((n for n in points if n <= step), default=None)
    above = min((n for n in points if n > step), default=None)
    if below is None:
        return 0.0
    if above is None:
        return points[below]
    part = (step - below) / (above - below)
    return points[below] + part * (points[above] - points[below])
