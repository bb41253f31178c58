"""Workers as processes of this machine: how one is started, how it ended, and several at once.

A run has a process of its own, since a crash must not end the others, and since a TPU belongs to
one process at a time.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from etils import epath

import miras
from miras.analysis.ablate.executor import Ended, Executor, Started
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.grid import GridRun
from miras.analysis.ablate.outcome import Outcome, read_outcome
from miras.analysis.ablate.worker_log import WorkerLog
from miras.config import config_hash, require, to_json
from miras.errors import ConfigError
from miras.runtime import compilation_cache

# Arguments of the interpreter. -u: keeps the output of a process that is killed.
WORKER = ("-u", "-m", "miras.analysis.ablate.worker")


class RunWork(NamedTuple):
    """What a worker must know of a run; plain values, that another machine can read.

    Attributes:
        slug: the name of its folder.
        config: its config, as one line of JSON.
        config_hash: of the config.
        steps: of the config.
    """

    slug: str
    config: str
    config_hash: str
    steps: int

    @classmethod
    def of(cls, run: GridRun) -> "RunWork":
        """The work of a run."""
        config = run.config
        return cls(run.slug, to_json(config, indent=None), config_hash(config), config.train.steps)

    def folder(self, grid: GridFolder) -> epath.Path:
        """The folder of the run."""
        return grid.runs / self.slug

    def log(self, grid: GridFolder) -> epath.Path:
        """The file with the output of its worker."""
        return grid.logs / f"{self.slug}.log"

    def failed(self, reason: str, seconds: float) -> Outcome:
        """The outcome of a run whose worker left none."""
        return Outcome(
            config_hash=self.config_hash,
            status="failed",
            reason=reason,
            steps=self.steps,
            seconds=round(seconds, 3),
        )


class _RunJob(NamedTuple):
    run: GridRun
    work: RunWork
    log: WorkerLog
    process: subprocess.Popen
    start: float


class LocalProcesses(Executor):
    """Trains several runs at once, which share the cores of this machine evenly.

    Args:
        folder: of the grid.
        jobs: processes at once, >= 1.
    """

    def __init__(self, folder: GridFolder, jobs: int):
        require(jobs >= 1, f"jobs={jobs} must be at least 1.")
        self._folder, self._jobs = folder, jobs
        self._environment = environment(folder.compiled, max(1, cores() // jobs), jobs > 1)
        self._running: list[_RunJob] = []
        self._started: list[Started] = []

    def accepts(self) -> bool:
        """Whether fewer than `jobs` processes are running."""
        return len(self._running) < self._jobs

    def submit(self, run: GridRun) -> None:
        """Start the process of a run."""
        work = RunWork.of(run)
        log = WorkerLog(work.log(self._folder))
        process = start(work, self._folder, self._environment, log)
        self._running.append(_RunJob(run, work, log, process, time.monotonic()))
        self._started.append(Started(run, ""))

    def poll(self) -> list[Started | Ended]:
        """Which processes were started, and which have ended."""
        started, self._started = self._started, []
        ended = [job for job in self._running if job.process.poll() is not None]
        for job in ended:
            self._running.remove(job)
        return [*started, *(Ended(job.run, self._outcome(job)) for job in ended)]

    def terminate(self) -> None:
        """Send SIGTERM to all processes, and wait for them."""
        for job in self._running:
            job.process.terminate()
        self._wait()

    def __exit__(self, *_) -> None:
        for job in self._running:
            job.process.kill()
        self._wait()

    def _wait(self) -> None:
        for job in self._running:
            job.process.wait()
            job.log.keep()

    def _outcome(self, job: _RunJob) -> Outcome:
        seconds = time.monotonic() - job.start
        return outcome(job.process, job.work, self._folder, job.log, seconds)


def cores() -> int:
    """CPU cores that this process may use."""
    with contextlib.suppress(AttributeError):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_jobs() -> int:
    """Half the cores, since a training step uses more than one; 2 if there are 2."""
    return min(cores(), max(2, cores() // 2))


def environment(compiled: pathlib.Path | None, threads: int, shares: bool) -> dict[str, str]:
    """The environment of a worker's process; jax settings of the user are kept.

    Args:
        compiled: folder of the compiled programs that several workers share; the user's cache
            folder if not given.
        threads: of the process, >= 1.
        shares: whether other workers use the same accelerator.
    """
    here = str(pathlib.Path(miras.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    kept = compilation_cache.settings()
    if compiled is not None:
        kept = {compilation_cache.FOLDER: str(compiled.absolute())}
    defaults = kept | {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "MIRAS_TRUST_PLUGINS": "1",  # the grid's process has loaded the plugins in the folder
    }
    if shares:  # otherwise the first process takes three quarters of a GPU
        defaults["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    threads_of = ("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    counts = dict.fromkeys(threads_of, str(threads))
    return defaults | dict(os.environ) | counts | {"PYTHONPATH": path}


def start(
    work: RunWork,
    folder: GridFolder,
    environment: Mapping[str, str],
    log: WorkerLog,
    *,
    worker: tuple[str, ...] | None = None,
    cwd: str | None = None,
) -> subprocess.Popen:
    """Start the worker of a run. It ends at once when this process does.

    Args:
        work: the run.
        folder: of the grid.
        environment: of the process.
        log: of its output.
        worker: arguments of the interpreter; `WORKER` if not given.
        cwd: its working directory; this process's if not given.
    """
    address = os.fspath(work.folder(folder))
    with log.open() as output:
        process = subprocess.Popen(
            [sys.executable, *(WORKER if worker is None else worker), address],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=cwd,
            start_new_session=True,  # only this process handles the terminal's interrupt
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its exit code is the error
        process.stdin.write(work.config.encode() + b"\n")
        process.stdin.flush()  # left open: the worker ends when it closes
    return process


def outcome(
    process: subprocess.Popen, work: RunWork, folder: GridFolder, log: WorkerLog, seconds: float
) -> Outcome:
    """The outcome that a worker has left, or why it left none; its log is kept.

    Args:
        process: of the worker, which has ended.
        work: the run.
        folder: of the grid.
        log: of the worker.
        seconds: for which the process was running.
    """
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    code, last = process.returncode, log.last_line()
    log.keep()
    try:
        found = read_outcome(work.folder(folder), work.config_hash)
    except ConfigError as error:
        return work.failed(str(error), seconds)
    if found is not None and code in (0, 1):
        return found
    ending = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
    reason = last.removeprefix("miras: ") if code == 2 and last else f"process {ending}: {last}"
    return work.failed(reason, seconds)
