"""Trains the runs of a grid, several at once, each in its own process.

A run with an outcome is not started again, so a grid that was interrupted resumes with the missing
runs. Processes share the CPU cores evenly: each starts as many threads as it has cores.
"""

import collections
import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import miras
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.grid import AblationGrid, GridRun
from miras.analysis.ablate.outcome import Outcome, read_outcome
from miras.config import config_hash, require, to_json
from miras.runtime import signals
from miras.runtime.files import check_target
from miras.train.loggers.jsonl import read_metrics

# -u: keeps the output of a process that is killed.
COMMAND = (sys.executable, "-u", "-m", "miras.analysis.ablate.worker")
_PAUSE = 0.1  # seconds between polls of the processes
_LOG_PAUSE = 1.0  # seconds between reads of their logs

Outcomes = dict[GridRun, Outcome]


class RunObserver:
    """Callbacks on the progress of runs. All methods do nothing; a subclass overrides them."""

    def started(self, run: GridRun) -> None:
        """A process was started for a run."""

    def progressed(self, run: GridRun, step: int) -> None:
        """A run has logged a step."""

    def ended(self, run: GridRun, outcome: Outcome) -> None:
        """A run ended, with any status."""


class _Job(NamedTuple):
    run: GridRun
    process: subprocess.Popen
    start: float


def train_all(
    grid: AblationGrid,
    folder: GridFolder,
    jobs: int,
    observer: RunObserver | None = None,
    save: Callable[[Outcomes], None] = lambda outcomes: None,
) -> Outcomes:
    """Train the runs of a grid that have no outcome.

    Args:
        grid: to train.
        folder: locked by the caller, see `GridFolder.opened`.
        jobs: processes to run at once, >= 1.
        observer: its callbacks are called.
        save: called with all outcomes so far after each new one.

    Returns:
        The outcome of every run, including those of earlier calls, in the order of `grid.runs`.

    Raises:
        Interrupted: after SIGINT or SIGTERM, when the running processes have saved checkpoints.
    """
    require(jobs >= 1, f"jobs={jobs} must be at least 1.")
    observer = observer or RunObserver()
    outcomes = finished(grid, folder)
    waiting = collections.deque(run for run in grid.runs if run not in outcomes)
    save(outcomes)
    environment = _environment(folder, jobs)
    last_read = 0.0
    with signals.handled(), _processes() as running:
        while waiting or running:
            if signals.requested() is not None:
                _terminate(running)
                done = f"{len(outcomes)} of {len(grid.runs)} runs are done"
                signals.check(f"; {done}, and the same command resumes the rest")
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                running.append(_Job(run, _start(run, folder, environment), time.monotonic()))
                observer.started(run)
            time.sleep(_PAUSE)
            if time.monotonic() - last_read > _LOG_PAUSE:
                last_read = time.monotonic()
                for job in running:
                    observer.progressed(job.run, _last_step(job.run, folder))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                outcomes[job.run] = _outcome(job, folder)
                outcomes = {run: outcomes[run] for run in grid.runs if run in outcomes}
                save(outcomes)
                observer.ended(job.run, outcomes[job.run])
    return outcomes


def finished(grid: AblationGrid, folder: GridFolder) -> Outcomes:
    """The outcomes in a folder, of runs that need not be started again."""
    found = {
        run: read_outcome(folder.runs / run.slug, config_hash(run.config)) for run in grid.runs
    }
    return {run: outcome for run, outcome in found.items() if outcome is not None}


def cores() -> int:
    """CPU cores that this process may use."""
    with contextlib.suppress(AttributeError):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_jobs() -> int:
    """Half the cores, since a training step uses more than one; 2 if there are 2."""
    return min(cores(), max(2, cores() // 2))


@contextlib.contextmanager
def _processes() -> Iterator[list[_Job]]:
    """A list of jobs whose processes are killed at the end; a killed run can be resumed."""
    jobs: list[_Job] = []
    try:
        yield jobs
    finally:
        for job in jobs:
            job.process.kill()
        for job in jobs:
            job.process.wait()


def _terminate(running: list[_Job]) -> None:
    """Send SIGTERM, on which runs save a checkpoint and end."""
    for job in running:
        job.process.terminate()
    for job in running:
        job.process.wait()


def _environment(folder: GridFolder, jobs: int) -> dict[str, str]:
    """The environment of a worker's process; jax settings of the user are kept."""
    threads = str(max(1, cores() // jobs))
    here = str(pathlib.Path(miras.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.compiled.absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    defaults["MIRAS_TRUST_PLUGINS"] = "1"  # this process has loaded the plugins in the folder
    if jobs > 1:  # otherwise the first process takes three quarters of a GPU
        defaults["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    threads_of = ("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return defaults | dict(os.environ) | dict.fromkeys(threads_of, threads) | {"PYTHONPATH": path}


def _start(run: GridRun, folder: GridFolder, environment: Mapping[str, str]) -> subprocess.Popen:
    path = folder.logs / f"{run.slug}.log"
    check_target(path)
    with path.open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, str(folder.runs / run.slug)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # only this process handles the terminal's interrupt
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its exit code is the error
        process.stdin.write(to_json(run.config, indent=None).encode() + b"\n")
        process.stdin.flush()  # left open: the worker ends when it closes
    return process


def _outcome(job: _Job, folder: GridFolder) -> Outcome:
    process, run = job.process, job.run
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    code = process.returncode
    found = read_outcome(folder.runs / run.slug, config_hash(run.config))
    if found is not None and code in (0, 1):
        return found
    ending = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
    last = _last_line(folder.logs / f"{run.slug}.log")
    return Outcome(
        config_hash=config_hash(run.config),
        status="failed",
        reason=last.removeprefix("miras: ") if code == 2 and last else f"process {ending}: {last}",
        steps=run.config.train.steps,
        seconds=round(time.monotonic() - job.start, 3),
    )


def _last_step(run: GridRun, folder: GridFolder) -> int:
    lines = read_metrics(folder.runs / run.slug / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["it printed nothing."]
    return lines[-1].strip()[:300]
