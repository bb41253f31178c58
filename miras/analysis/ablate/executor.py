"""What runs the cells of a grid: the interface of local processes and of a Ray cluster.

`processes.LocalProcesses` and `ray_tasks.RayTasks` implement it; `jobs.train_all` uses it. Both
start the same worker (`worker`) in a process of its own, see `processes`.
"""

import abc
from types import TracebackType
from typing import NamedTuple

from miras.analysis.ablate.grid import GridRun
from miras.analysis.ablate.outcome import Outcome


class Started(NamedTuple):
    """The worker of a run was started; once more after its machine was lost.

    Attributes:
        run: that was submitted.
        place: the machine; "" for this one.
    """

    run: GridRun
    place: str


class Ended(NamedTuple):
    """A run ended; it is reported once.

    Attributes:
        run: that was submitted.
        outcome: what the worker left, or a failure.
    """

    run: GridRun
    outcome: Outcome


class Executor(abc.ABC):
    """Runs the workers of submitted runs; a context manager.

    At the end of its block no worker is running: those that still are, are killed, which a run
    survives. To add an executor, implement the four methods and `__exit__`.
    """

    @abc.abstractmethod
    def accepts(self) -> bool:
        """Whether another run may be submitted now."""

    @abc.abstractmethod
    def submit(self, run: GridRun) -> None:
        """Start a run, now or as soon as there is a place for it."""

    @abc.abstractmethod
    def poll(self) -> list[Started | Ended]:
        """What has happened since the last call, in order; does not wait."""

    @abc.abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM to all workers, on which they save a checkpoint, and wait until they end."""

    def __enter__(self) -> "Executor":
        return self

    @abc.abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the workers that are running."""
