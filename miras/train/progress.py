"""What a run says while it trains: a live bar on a terminal, plain lines elsewhere."""

import contextlib
import datetime
import pathlib
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

from miras.errors import ConfigError
from miras.runtime.files import check_target


class Reporter:
    """Progress of a run; a context manager.

    Args:
        console: where to.
        total: steps of the run.
        start: steps done before.
        log: a file for warnings, and for all that the console has dropped; made
            when it is needed. None: they are not kept.
    """

    def __init__(self, console: Console, total: int, start: int, log: pathlib.Path | None = None):
        self._console, self._log = console, log
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
        if getattr(self._console.file, "dropped", False):
            self._keep(text)

    def warn(self, text: str) -> None:
        """One line, which is also kept."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._keep(text)

    def _keep(self, text: str) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError, ConfigError):
                check_target(self._log)
                with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text + "\n")

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
