"""Progress of a run on the console: a live bar on a terminal, plain lines elsewhere."""

import contextlib
import datetime
import pathlib
import time
from collections.abc import Iterator, Mapping

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
    """Prints the progress of a run; a context manager.

    Args:
        console: the output.
        total: steps of the run.
        start: steps done before this process.
        log: a file for warnings and for lines that the console could not write, created when
            needed; None discards them.
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
        """Advance the bar to a step."""
        self._first = self._first or (step, time.monotonic())
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def print_means(self, step: int, values: Mapping[str, float], bits: bool) -> None:
        """Print the means of an interval.

        Args:
            step: updates done.
            values: as `IntervalMeans.means` gives them, and `goodput`.
            bits: whether bits per byte mean anything.
        """
        measures = "  ".join(_measures(values, bits))
        if self._bar is not None:
            self._bar.update(self._task, measures=measures)
        else:
            width = len(str(self._total))
            self.print_line(f"step {step:{width}}/{self._total}  {measures}  eta {self._eta(step)}")

    def print_line(self, text: str) -> None:
        """Print one line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        if getattr(self._console.file, "dropped", False):
            self._append_to_log(text)

    def warn(self, text: str) -> None:
        """Print one line and append it to the log."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._append_to_log(text)

    def _append_to_log(self, text: str) -> None:
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


def _measures(values: Mapping[str, float], bits: bool) -> Iterator[str]:
    """The measures of an interval, in words; those that are as they should be are left out."""
    yield f"loss {values['loss']:.3f}"
    if bits:
        yield f"bits/byte {values['bits_per_byte']:.3f}"
    yield f"{_count(values['tokens_per_second'])} tokens/s"
    if seconds := values.get("step_seconds"):
        yield f"step {seconds:.3g} s"
        if (waited := values["data_wait_seconds"] / max(values["steps"], 1)) > 0.05 * seconds:
            yield f"data wait {waited:.2g} s"
    if "model_flops_utilization" in values:
        yield f"mfu {values['model_flops_utilization']:.1%}"
    if "peak_memory_bytes" in values:
        yield f"peak {values['peak_memory_bytes'] / 2**30:.1f} GiB"
    if "goodput" in values:
        yield f"goodput {values['goodput']:.0%}"


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
