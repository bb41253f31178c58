"""What a run says while it trains: a live bar on a terminal, plain lines elsewhere."""

import datetime
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Progress of a run; a context manager.

    Args:
        console: where to.
        total: steps of the run.
        start: steps done before.
    """

    def __init__(self, console: Console, total: int, start: int):
        self._console = console
        self._total = total
        self._start = start
        self._first: tuple[int, float] | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "Reporter":
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[measures]}"),
                TextColumn("eta"),
                TimeRemainingColumn(),
                console=self._console,
                speed_estimate_period=120,
            )
            self._task = self._bar.add_task(
                "train", total=self._total, completed=self._start, measures="compiling"
            )
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int) -> None:
        """A step is done."""
        self._first = self._first or (step, time.monotonic())  # the first one compiles
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def measured(
        self, step: int, loss: float, bits: float | None, tokens_per_second: float
    ) -> None:
        """The means since the last report: nats per target, bits per byte if of text, speed."""
        text = "" if bits is None else f"bits/byte {bits:.3f}  "
        measures = f"loss {loss:.3f}  {text}{_count(tokens_per_second)} tokens/s"
        if self._bar is not None:
            self._bar.update(self._task, measures=measures)
        else:
            width = len(str(self._total))
            self.say(f"step {step:{width}}/{self._total}  {measures}  eta {self._eta(step)}")

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _eta(self, step: int) -> str:
        if self._first is None or self._first[0] == step:
            return "unknown"
        per_step = (time.monotonic() - self._first[1]) / (step - self._first[0])
        return str(datetime.timedelta(seconds=round(per_step * (self._total - step))))


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
