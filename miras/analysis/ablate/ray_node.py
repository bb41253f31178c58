"""What a node of a Ray cluster does for a grid: `run_cell`, a Ray task that runs one worker.

The task starts the same worker process as a grid without Ray (`processes.start`), and waits for it:
a crash of the worker ends neither Ray's process nor other cells, a TPU is free again when the
process has ended, and Ray's process may have imported what it likes. When Ray's process or its node
dies, the worker's standard input closes and it ends at once.
"""

import json
import os
import pathlib
import socket
import subprocess
import time
from typing import NamedTuple

from miras.analysis.ablate import processes
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.outcome import Outcome, read_outcome
from miras.analysis.ablate.processes import RunWork
from miras.runtime.code_version import code_version
from miras.runtime.files import write_atomically
from miras.train.runs.disk_lock import DiskLock

_PAUSE = 0.1  # seconds between polls of the worker
_VISIBLE = 30.0  # seconds; a network file system shows a new file late
CHECK = "nodes"  # the file by which nodes see that the folder is the grid's


class Cell(NamedTuple):
    """A run as a task, in plain values.

    Attributes:
        work: the run.
        folder: of the grid, absolute.
        cwd: where the command was given, from which relative paths of the config start.
        threads: of the worker.
        shares: whether other cells use its GPU.
        worker: arguments of the interpreter.
    """

    work: RunWork
    folder: str
    cwd: str
    threads: int
    shares: bool
    worker: tuple[str, ...]


def run_cell(cell: Cell) -> Outcome | None:
    """Run the worker of a cell, unless it has finished before.

    Ray calls it again on another node when this one is lost; the worker then resumes the run once
    the lease of the lost one has expired (`miras.train.runs.lease`).

    Returns:
        The outcome; None after `ray.cancel`, when the worker has saved its last step.
    """
    start, work, folder = time.monotonic(), cell.work, GridFolder(cell.folder)
    if not folder.grid.is_file():
        return work.failed(f"{folder.path} is not on {_place()}", 0)
    found = read_outcome(work.folder(folder), work.config_hash)
    if found is not None:
        return found
    DiskLock(work.folder(folder)).share()
    place = {"place": _place(), "since": time.time()}
    write_atomically(place_file(folder, work.slug), json.dumps(place) + "\n")
    # Programs that another host has compiled for its CPU may not run on this one.
    compiled = folder.compiled / socket.gethostname()
    process = None
    try:
        process = processes.start(
            work,
            folder,
            processes.environment(compiled, cell.threads, cell.shares),
            worker=cell.worker,
            append=True,
            cwd=cell.cwd if os.path.isdir(cell.cwd) else None,
        )
        while process.poll() is None:
            time.sleep(_PAUSE)
    except KeyboardInterrupt:  # by `ray.cancel`
        _terminate(process)
        return None
    return processes.outcome(process, work, folder, time.monotonic() - start)


def check_node(folder: str, token: str) -> tuple[bool, str]:
    """Whether this node sees a grid's folder, and its code.

    Args:
        folder: of the grid, absolute.
        token: content of its file `CHECK`.
    """
    path, end = pathlib.Path(folder), time.monotonic() + _VISIBLE
    while _read(path / CHECK) != token:
        if not path.parent.is_dir() or time.monotonic() > end:
            return False, code_version()
        time.sleep(0.1)
    return True, code_version()


def place_file(folder: GridFolder, slug: str) -> pathlib.Path:
    """The file that says on which node a run is."""
    return folder.logs / f"{slug}.node"


def _terminate(process: subprocess.Popen | None) -> None:
    """Send SIGTERM, on which the run saves a checkpoint, and wait."""
    if process is not None:
        process.terminate()
        process.wait()


def _place() -> str:
    """This node: its host, and the beginning of the number by which Ray lists it."""
    import ray

    return f"{socket.gethostname()} (node {ray.get_runtime_context().get_node_id()[:8]})"


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
