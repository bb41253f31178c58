"""What a node of a Ray cluster does for a grid: `run_cell`, a Ray task that runs one worker.

The task starts the same worker process as a grid without Ray (`processes.start`), and waits for it:
a crash of the worker ends neither Ray's process nor other cells, a TPU is free again when the
process has ended, and Ray's process may have imported what it likes. When Ray's process or its node
dies, the worker's standard input closes and it ends at once.
"""

import json
import os
import pathlib
import signal
import socket
import time
from typing import NamedTuple

from etils import epath

from miras.analysis.ablate import processes
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.outcome import Outcome, read_outcome
from miras.analysis.ablate.processes import RunWork
from miras.analysis.ablate.worker_log import WorkerLog
from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.code_version import code_version
from miras.train.runs.disk_lock import DiskLock

_PAUSE = 0.1  # seconds between polls of the worker
_VISIBLE = 30.0  # seconds; a network file system shows a new file late
CHECK = "nodes"  # the file by which nodes see that the folder is the grid's


class Cell(NamedTuple):
    """A run as a task, in plain values.

    Attributes:
        work: the run.
        folder: of the grid, its `address`.
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
    # `ray.cancel` has no effect where SIGINT is ignored, as in what a script starts with `&`.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start, work, folder = time.monotonic(), cell.work, GridFolder(cell.folder)
    if folder.grid.name not in paths.entries(folder.path):
        return work.failed(f"{folder.path} is not on {_place()}", 0)
    found = read_outcome(work.folder(folder), work.config_hash)
    if found is not None:
        return found
    if not folder.remote:
        DiskLock(pathlib.Path(work.folder(folder))).share()
    place = {"place": _place(), "since": time.time()}
    paths.write(place_file(folder, work.slug), json.dumps(place) + "\n")
    # Programs that another host has compiled for its CPU may not run on this one.
    compiled = folder.compiled and folder.compiled / socket.gethostname()
    log, process = WorkerLog(work.log(folder), append=True), None
    try:
        process = processes.start(
            work,
            folder,
            processes.environment(compiled, cell.threads, cell.shares),
            log,
            worker=cell.worker,
            cwd=cell.cwd if os.path.isdir(cell.cwd) else None,
        )
        while process.poll() is None:
            time.sleep(_PAUSE)
    except KeyboardInterrupt:  # by `ray.cancel`
        if process is not None:
            process.terminate()  # on which the run saves a checkpoint
            process.wait()
        log.keep()
        return None
    return processes.outcome(process, work, folder, log, time.monotonic() - start)


class NodeAnswer(NamedTuple):
    """What a node says of itself.

    Attributes:
        sees: whether it sees the folder of the grid.
        code: its `code_version`.
        why: why it does not see a folder on an object store, as a sentence; "" if that is unknown.
    """

    sees: bool
    code: str
    why: str = ""


def check_node(folder: str, token: str) -> NodeAnswer:
    """Whether this node sees a grid's folder, and its code.

    Args:
        folder: of the grid, its `address`.
        token: content of its file `CHECK`.
    """
    end = time.monotonic() + _VISIBLE
    try:
        path = paths.open_path(folder)
        while _read(path / CHECK) != token:
            gone = not paths.is_remote(path) and not path.parent.is_dir()
            if gone or time.monotonic() > end:
                return NodeAnswer(False, code_version())
            time.sleep(0.1)
    except ConfigError as error:
        return NodeAnswer(False, code_version(), str(error))
    return NodeAnswer(True, code_version())


def place_file(folder: GridFolder, slug: str) -> epath.Path:
    """The file that says on which node a run is."""
    return folder.logs / f"{slug}.node"


def _place() -> str:
    """This node: its host, and the beginning of the number by which Ray lists it."""
    import ray

    return f"{socket.gethostname()} (node {ray.get_runtime_context().get_node_id()[:8]})"


def _read(path: epath.Path) -> str | None:
    try:
        return paths.read(path).decode(errors="replace").strip()
    except OSError:
        return None
