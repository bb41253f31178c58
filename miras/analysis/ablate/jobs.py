"""Trains the runs of a grid that have no outcome, several at once.

An `Executor` starts their workers, on this machine or on others. A run with an outcome is not
started again, so a grid that was interrupted resumes with the missing runs.
"""

import collections
import time
from collections.abc import Callable, Sequence

from miras.analysis.ablate.executor import Executor, Started
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.grid import AblationGrid, GridRun
from miras.analysis.ablate.outcome import OUTCOME, Outcome, parse_outcome
from miras.config import config_hash
from miras.errors import ConfigError
from miras.runtime import paths, signals
from miras.train.loggers.jsonl import parse_metrics
from miras.train.runs import mirror

_PAUSE = 0.1  # seconds between polls of the executor
_LOG_PAUSE = 1.0  # seconds between reads of the logs; on an object store, between their uploads
_LOG_END = 8192  # bytes at the end of a log, which have its last step

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
    last_read, pause = 0.0, mirror.FLUSH if folder.remote else _LOG_PAUSE
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
            if time.monotonic() - last_read > pause:
                last_read = time.monotonic()
                for run, step in zip(running, _last_steps(running, folder), strict=True):
                    observer.progressed(run, step)
    return outcomes


def finished(grid: AblationGrid, folder: GridFolder) -> Outcomes:
    """The outcomes in a folder, of runs that need not be started again.

    Raises:
        ConfigError: the object store of the folder cannot be reached.
    """
    files = {run: folder.runs / run.slug / OUTCOME for run in grid.runs}
    contents = paths.read_many(list(files.values()))
    found = {
        run: parse_outcome(contents[file], config_hash(run.config))
        for run, file in files.items()
        if file in contents
    }
    return {run: outcome for run, outcome in found.items() if outcome is not None}


def _last_steps(runs: Sequence[GridRun], folder: GridFolder) -> list[int]:
    """The last step in the log of each run; 0 where there is none, or it cannot be read now."""
    files = [folder.runs / run.slug / "metrics.jsonl" for run in runs]
    try:
        contents = paths.read_many(files, _LOG_END)
    except (ConfigError, OSError):  # only the progress shows them
        contents = {}
    lines = [parse_metrics(contents.get(f, b"").decode("utf-8", "replace")) for f in files]
    return [found[-1]["step"] if found else 0 for found in lines]
