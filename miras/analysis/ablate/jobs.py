"""Trains the runs of a grid that have no outcome, several at once.

An `Executor` starts their workers, on this machine or on others. A run with an outcome is not
started again, so a grid that was interrupted resumes with the missing runs.
"""

import collections
import time
from collections.abc import Callable

from miras.analysis.ablate.executor import Executor, Started
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.grid import AblationGrid, GridRun
from miras.analysis.ablate.outcome import Outcome, read_outcome
from miras.config import config_hash
from miras.runtime import signals
from miras.train.loggers.jsonl import read_metrics

_PAUSE = 0.1  # seconds between polls of the executor
_LOG_PAUSE = 1.0  # seconds between reads of the logs

Outcomes = dict[GridRun, Outcome]


class RunObserver:
    """Callbacks on the progress of runs. All methods do nothing; a subclass overrides them."""

    def started(self, run: GridRun, place: str) -> None:
        """A worker was started, on the machine `place`; on another one after that was lost."""

    def progressed(self, run: GridRun, step: int) -> None:
        """A run has logged a step."""

    def ended(self, run: GridRun, outcome: Outcome) -> None:
        """A run ended, with any status."""


def train_all(
    grid: AblationGrid,
    folder: GridFolder,
    executor: Executor,
    observer: RunObserver | None = None,
    save: Callable[[Outcomes], None] = lambda outcomes: None,
) -> Outcomes:
    """Train the runs of a grid that have no outcome.

    Args:
        grid: to train.
        folder: locked by the caller, see `GridFolder.opened`.
        executor: runs them.
        observer: its callbacks are called.
        save: called with all outcomes so far after each new one.

    Returns:
        The outcome of every run, including those of earlier calls, in the order of `grid.runs`.

    Raises:
        Interrupted: after SIGINT or SIGTERM, when the running workers have saved checkpoints.
    """
    observer = observer or RunObserver()
    outcomes = finished(grid, folder)
    waiting = collections.deque(run for run in grid.runs if run not in outcomes)
    left = len(waiting)
    running: list[GridRun] = []
    save(outcomes)
    last_read = 0.0
    with signals.handled(), executor:
        while left:
            if signals.requested() is not None:
                executor.terminate()
                done = f"{len(outcomes)} of {len(grid.runs)} runs are done"
                signals.check(f"; {done}, and the same command resumes the rest")
            while waiting and executor.accepts():
                executor.submit(waiting.popleft())
            for event in executor.poll():
                run = event.run
                if isinstance(event, Started):
                    running += [run] * (run not in running)
                    observer.started(run, event.place)
                    continue
                left -= 1
                running.remove(run)
                outcomes[run] = event.outcome
                outcomes = {run: outcomes[run] for run in grid.runs if run in outcomes}
                save(outcomes)
                observer.ended(run, event.outcome)
            time.sleep(_PAUSE)
            if time.monotonic() - last_read > _LOG_PAUSE:
                last_read = time.monotonic()
                for run in running:
                    observer.progressed(run, _last_step(run, folder))
    return outcomes


def finished(grid: AblationGrid, folder: GridFolder) -> Outcomes:
    """The outcomes in a folder, of runs that need not be started again."""
    found = {
        run: read_outcome(folder.runs / run.slug, config_hash(run.config)) for run in grid.runs
    }
    return {run: outcome for run, outcome in found.items() if outcome is not None}


def _last_step(run: GridRun, folder: GridFolder) -> int:
    lines = read_metrics(folder.runs / run.slug / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0
