"""Progress of a grid: bars on a terminal, otherwise one line per finished run."""

import datetime
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from miras.analysis.ablate.grid import GridRun
from miras.analysis.ablate.jobs import RunObserver
from miras.analysis.ablate.metric import Metric
from miras.analysis.ablate.outcome import Outcome


class Display(RunObserver):
    """A bar for all runs and one for each running one; a context manager.

    Args:
        console: to print to.
        metric: printed for each finished run.
        total: number of runs of the grid.
        done: number of runs that need not be started.
        jobs: processes that run at once.
    """

    def __init__(self, console: Console, metric: Metric, total: int, done: int, jobs: int):
        self._console, self._metric = console, metric
        self._total, self._done, self._before = total, done, done
        self._jobs = jobs
        self._start = time.monotonic()
        self._parts: dict[GridRun, float] = {}  # the finished share of each running run
        self._places: dict[GridRun, str] = {}
        self._lines: dict[GridRun, TaskID] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bar.add_task("all runs", total=total, completed=done, status="")

    def __enter__(self) -> "Display":
        self._bar.start()
        self._update()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def started(self, run: GridRun, place: str) -> None:
        """Add its bar, anew when it was started elsewhere."""
        if run in self._lines:
            self._bar.remove_task(self._lines[run])
        self._parts[run], self._places[run] = 0.0, f" on {place}" if place else ""
        name = f"{run.name}, seed {run.seed}{self._places[run]}".replace("[", "\\[")
        steps = run.config.train.steps
        self._lines[run] = self._bar.add_task(name, total=steps, status="starting")

    def progressed(self, run: GridRun, step: int) -> None:
        """Move its bar."""
        steps = run.config.train.steps
        self._parts[run] = step / steps
        if step:
            self._bar.update(self._lines[run], completed=step, status=f"step {step}/{steps}")
        self._update()

    def ended(self, run: GridRun, outcome: Outcome) -> None:
        """Remove its bar, and print a line with its result."""
        self._parts.pop(run)
        self._bar.remove_task(self._lines.pop(run))
        self._done += 1
        value = self._metric.of(outcome)
        result = (
            f"{value:.4f} {self._metric.name}"
            if value is not None
            else f"{outcome.status}: {outcome.reason}"
        )
        seconds = f"{outcome.seconds:.0f} s{self._places.pop(run)}"
        place = f"{self._done:{len(str(self._total))}}/{self._total}"
        eta = "" if self._console.is_terminal else f"  eta {self._eta()}"
        self._console.print(
            f"{place}  {run.name}, seed {run.seed}: {result}  {seconds}{eta}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        self._update()

    def _update(self) -> None:
        status = f"{self._done}/{self._total}  eta {self._eta()}"
        completed = self._done + sum(self._parts.values())
        self._bar.update(self._all, completed=completed, status=status)

    def _eta(self) -> str:
        """The remaining time, from the share of the work that this call has done."""
        done = self._done - self._before + sum(self._parts.values())
        left = self._total - self._before - done
        if done < 0.2 * self._jobs and left:  # start and compilation take long and log no step
            return "unknown"
        elapsed = time.monotonic() - self._start
        return str(datetime.timedelta(seconds=round(elapsed * left / max(done, 1e-9))))
