"""What a grid says while it is trained: live lines on a terminal, a line per run elsewhere."""

import datetime
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from miras.analysis.ablate.grid import Run
from miras.analysis.ablate.jobs import Watcher
from miras.analysis.ablate.outcome import Outcome
from miras.analysis.ablate.score import Score


class Display(Watcher):
    """One bar for all runs and one line for each that goes on; a context manager.

    Args:
        console: where to.
        score: what is told of each run.
        total: runs of the grid.
        done: runs that need not be started.
        jobs: processes at once.
    """

    def __init__(self, console: Console, score: Score, total: int, done: int, jobs: int):
        self._console, self._score = console, score
        self._total, self._done, self._before = total, done, done
        self._jobs = jobs
        self._start = time.monotonic()
        self._parts: dict[Run, float] = {}  # of each run that goes on, the share that is done
        self._lines: dict[Run, TaskID] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[told]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bar.add_task("all runs", total=total, completed=done, told="")

    def __enter__(self) -> "Display":
        self._bar.start()
        self._update()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def started(self, run: Run) -> None:
        """Add its line."""
        self._parts[run] = 0.0
        name = f"{run.name}, seed {run.seed}".replace("[", "\\[")
        steps = run.config.train.steps
        self._lines[run] = self._bar.add_task(name, total=steps, told="starting")

    def at(self, run: Run, step: int) -> None:
        """Move its bar."""
        steps = run.config.train.steps
        self._parts[run] = step / steps
        if step:
            self._bar.update(self._lines[run], completed=step, told=f"step {step}/{steps}")
        self._update()

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Take its line away, and say in one how it ended."""
        self._parts.pop(run)
        self._bar.remove_task(self._lines.pop(run))
        self._done += 1
        value = self._score.of(outcome)
        how = (
            f"{value:.4f} {self._score.name}"
            if value is not None
            else f"{outcome.status}: {outcome.reason}"
        )
        seconds = f"{outcome.seconds:.0f} s"
        place = f"{self._done:{len(str(self._total))}}/{self._total}"
        eta = "" if self._console.is_terminal else f"  eta {self._eta()}"
        self._console.print(
            f"{place}  {run.name}, seed {run.seed}: {how}  {seconds}{eta}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        self._update()

    def _update(self) -> None:
        told = f"{self._done}/{self._total}  eta {self._eta()}"
        completed = self._done + sum(self._parts.values())
        self._bar.update(self._all, completed=completed, told=told)

    def _eta(self) -> str:
        """Time to go, from the share of the work that this call has done."""
        done = self._done - self._before + sum(self._parts.values())
        left = self._total - self._before - done
        if done < 0.2 * self._jobs and left:  # starting and compiling take long, and show nothing
            return "unknown"
        elapsed = time.monotonic() - self._start
        return str(datetime.timedelta(seconds=round(elapsed * left / max(done, 1e-9))))
