"""Training the runs of a grid, several at once, each in a process of its own.

A run that has an outcome is not started again, so a grid that was stopped at any point goes on with
what is missing. Processes are told to share the CPU's cores evenly: each starts as many threads as
it has cores to itself.
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
from miras.analysis.ablate.grid import Grid, Run
from miras.analysis.ablate.outcome import Outcome, read_outcome
from miras.config import config_hash, require, to_json
from miras.runtime import signals
from miras.runtime.files import check_target
from miras.train.loggers.jsonl import read_metrics

# -u: what a killed one has printed is kept.
COMMAND = (sys.executable, "-u", "-m", "miras.analysis.ablate.worker")
_PAUSE = 0.1  # seconds between looks at the processes
_PAUSE_OF_LOGS = 1.0  # and at what they log

Outcomes = dict[Run, Outcome]


class Watcher:
    """Is told what happens; a subclass shows it. All methods do nothing."""

    def started(self, run: Run) -> None:
        """A process was started for a run."""

    def at(self, run: Run, step: int) -> None:
        """A run that goes on has logged a step."""

    def ended(self, run: Run, outcome: Outcome) -> None:
        """A run ended, in whatever way."""


class _Job(NamedTuple):
    run: Run
    process: subprocess.Popen
    start: float


def train_all(
    grid: Grid,
    folder: GridFolder,
    jobs: int,
    watcher: Watcher | None = None,
    save: Callable[[Outcomes], None] = lambda outcomes: None,
) -> Outcomes:
    """Train what is missing of a grid.

    Args:
        grid: what to train.
        folder: held by the caller, see `GridFolder.opened`.
        jobs: processes at once, >= 1.
        watcher: is told of what happens.
        save: called with all outcomes so far, whenever there is a new one.

    Returns:
        The outcome of every run, those of earlier calls included, in the order of `grid.runs`.

    Raises:
        Interrupted: after SIGINT or SIGTERM, once the runs under way have saved themselves.
    """
    require(jobs >= 1, f"jobs={jobs} must be at least 1.")
    watcher = watcher or Watcher()
    outcomes = finished(grid, folder)
    waiting = collections.deque(run for run in grid.runs if run not in outcomes)
    save(outcomes)
    environment = _environment(folder, jobs)
    looked = 0.0
    with signals.handled(), _processes() as running:
        while waiting or running:
            if signals.requested() is not None:
                _end(running)
                done = f"{len(outcomes)} of {len(grid.runs)} runs are done"
                signals.check(f"; {done}, and the same command goes on from there")
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                running.append(_Job(run, _start(run, folder, environment), time.monotonic()))
                watcher.started(run)
            time.sleep(_PAUSE)
            if time.monotonic() - looked > _PAUSE_OF_LOGS:
                looked = time.monotonic()
                for job in running:
                    watcher.at(job.run, _last_step(job.run, folder))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                outcomes[job.run] = _outcome(job, folder)
                outcomes = {run: outcomes[run] for run in grid.runs if run in outcomes}
                save(outcomes)
                watcher.ended(job.run, outcomes[job.run])
    return outcomes


def finished(grid: Grid, folder: GridFolder) -> Outcomes:
    """The outcomes that lie in a folder: those of runs that need not be started again."""
    found = {
        run: read_outcome(folder.runs / run.slug, config_hash(run.config)) for run in grid.runs
    }
    return {run: outcome for run, outcome in found.items() if outcome is not None}


def cores() -> int:
    """CPU cores that this process may use."""
    with contextlib.suppress(AttributeError):  # only Linux tells
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_jobs() -> int:
    """Half the cores, since a training step keeps more than one busy, but 2 if there are 2."""
    return min(cores(), max(2, cores() // 2))


@contextlib.contextmanager
def _processes() -> Iterator[list[_Job]]:
    """A list of jobs, of which none outlives the block; a killed run goes on where it was."""
    jobs: list[_Job] = []
    try:
        yield jobs
    finally:
        for job in jobs:
            job.process.kill()
        for job in jobs:
            job.process.wait()


def _end(running: list[_Job]) -> None:
    """Let runs save themselves and end, as a signal lets them."""
    for job in running:
        job.process.terminate()
    for job in running:
        job.process.wait()


def _environment(folder: GridFolder, jobs: int) -> dict[str, str]:
    """What a worker's process inherits; what the user has set of jax stands."""
    threads = str(max(1, cores() // jobs))
    here = str(pathlib.Path(miras.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.compiled.absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    defaults["MIRAS_TRUST_PLUGINS"] = "1"  # this process has loaded what the folder keeps
    if jobs > 1:  # or the first process takes three quarters of a GPU
        defaults["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    threads_of = ("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return defaults | dict(os.environ) | dict.fromkeys(threads_of, threads) | {"PYTHONPATH": path}


def _start(run: Run, folder: GridFolder, environment: Mapping[str, str]) -> subprocess.Popen:
    path = folder.logs / f"{run.slug}.log"
    check_target(path)
    with path.open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, str(folder.runs / run.slug)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # an interrupt of the terminal is for this process to handle
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its exit code tells
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
    how = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
    last = _last_line(folder.logs / f"{run.slug}.log")
    return Outcome(
        config_hash=config_hash(run.config),
        status="failed",
        reason=last.removeprefix("miras: ") if code == 2 and last else f"its process {how}: {last}",
        steps=run.config.train.steps,
        seconds=round(time.monotonic() - job.start, 3),
    )


def _last_step(run: Run, folder: GridFolder) -> int:
    lines = read_metrics(folder.runs / run.slug / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing."]
    return lines[-1].strip()[:300]
