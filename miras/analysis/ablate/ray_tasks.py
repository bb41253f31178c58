"""Workers as tasks of a Ray cluster, which has the queue, and starts a lost one elsewhere."""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from miras.analysis.ablate import processes
from miras.analysis.ablate.executor import Ended, Executor, Started
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.grid import GridRun
from miras.analysis.ablate.outcome import Outcome
from miras.analysis.ablate.processes import RunWork
from miras.analysis.ablate.ray_cluster import RayOptions
from miras.analysis.ablate.ray_node import CHECK, Cell, check_node, place_file, run_cell
from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.code_version import code_version

RETRIES = 100  # nodes that a run may lose before it fails
_PAUSE = 1.0  # seconds between reads of the files that say where runs are
_STORE_PAUSE = 5.0  # as above, on an object store
_ANSWER = 120.0  # seconds in which a node answers, which starts a process for it
_END = 10.0  # seconds in which Ray kills tasks


class RayTasks(Executor):
    """Trains runs on the nodes of the cluster to which this process is connected.

    All runs are submitted at once, and Ray starts each as soon as a node has what it needs. A run
    whose node was lost goes on from its checkpoint on another; one whose worker fails has failed,
    as on this machine.

    Args:
        folder: of the grid, on a disk that all nodes share, or on an object store.
        options: what each run needs.
        nodes: on which a run can be, as `ray.nodes()` describes them.

    Raises:
        ConfigError: a node does not see the folder, or has other code.
    """

    def __init__(self, folder: GridFolder, options: RayOptions, nodes: Sequence[Mapping[str, Any]]):
        import ray

        self._folder, self._options = folder, options
        _check_nodes(folder, nodes)
        self._task = ray.remote(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            resources=dict(options.resources),
            max_retries=RETRIES,
        )(run_cell)
        self._runs: dict[Any, GridRun] = {}
        self._places: dict[GridRun, bytes] = {}
        self._before = set(paths.entries(folder.logs))  # of earlier commands
        self._last_read, self._pause = 0.0, _STORE_PAUSE if folder.remote else _PAUSE

    def accepts(self) -> bool:
        """Always: Ray has the queue."""
        return True

    def submit(self, run: GridRun) -> None:
        """Put a run into Ray's queue."""
        place = place_file(self._folder, run.slug)
        if place.name in self._before:
            paths.remove(place)
        cell = Cell(
            RunWork.of(run),
            self._folder.address,
            os.getcwd(),
            self._options.threads,
            self._options.gpus < 1,
            processes.WORKER,
        )
        name = f"{run.name}, seed {run.seed}"
        self._runs[self._task.options(name=name).remote(cell)] = run

    def poll(self) -> list[Started | Ended]:
        """Which runs have a node, perhaps another than before, and which have ended."""
        import ray

        done, _ = ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0)
        events: list[Started | Ended] = []
        if done or time.monotonic() - self._last_read > self._pause:
            self._last_read = time.monotonic()
            events += self._placed()
        for task in done:
            run = self._runs.pop(task)
            if self._places.pop(run, None) is None:  # ended before it was seen
                events.append(Started(run, ""))
            events.append(Ended(run, _outcome(task, run)))
        return events

    def terminate(self) -> None:
        """Send SIGTERM to the workers on all nodes, and wait for them; the others never start."""
        import ray

        for task in self._runs:
            ray.cancel(task)
        while self._runs:
            done, _ = ray.wait(list(self._runs), timeout=_PAUSE)
            for task in done:
                del self._runs[task]

    def __exit__(self, *_) -> None:
        import ray

        for task in self._runs:
            ray.cancel(task, force=True)
        if self._runs:
            ray.wait(list(self._runs), num_returns=len(self._runs), timeout=_END)
        self._runs.clear()

    def _placed(self) -> list[Started]:
        """The runs whose files of places have changed."""
        files = {run: place_file(self._folder, run.slug) for run in self._runs.values()}
        try:
            contents = paths.read_many(list(files.values()))
        except (ConfigError, OSError):  # only the progress shows them
            return []
        events = []
        for run, file in files.items():
            text = contents.get(file)
            if text is None or self._places.get(run) == text:  # it is waiting, or where it was
                continue
            with contextlib.suppress(ValueError):
                events.append(Started(run, json.loads(text)["place"]))
                self._places[run] = text
        return events


def _outcome(task: Any, run: GridRun) -> Outcome:
    import ray
    from ray import exceptions

    work = RunWork.of(run)
    try:
        found: Any = ray.get(task)
    except exceptions.RayError as error:
        return work.failed(f"Ray: {_sentence(error)}", 0)
    return work.failed("its task was cancelled", 0) if found is None else found


def _check_nodes(folder: GridFolder, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Check that nodes see the folder of the grid, and have this code."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token, path = secrets.token_hex(8), folder.path / CHECK
    paths.write(path, token + "\n")
    check = ray.remote(num_cpus=0, max_retries=0)(check_node)
    names = {}
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})"
        names[check.options(scheduling_strategy=where).remote(folder.address, token)] = name
    try:
        done, _ = ray.wait(list(names), num_returns=len(names), timeout=_ANSWER)
        for task in done:
            _check_answer(task, names[task], folder)
    finally:
        paths.remove(path)


def _check_answer(task: Any, name: str, folder: GridFolder) -> None:
    import ray
    from ray import exceptions

    lost = (exceptions.NodeDiedError, exceptions.TaskUnschedulableError)
    try:
        answer: Any = ray.get(task)
    except lost:  # another node takes its place, or none is needed
        return
    except exceptions.RayError as error:
        raise ConfigError(
            f"{name} cannot run a cell ({_sentence(error)}): install miras there, as here."
        ) from error
    if answer.why:
        raise ConfigError(f"{name}: {answer.why}")
    if not answer.sees:
        fix = "give a folder on a disk that all nodes share, or in a bucket, with --out."
        if folder.remote:
            fix = "give all nodes the same endpoint and credentials."
        raise ConfigError(f"{name} does not see {folder.address} as this machine does: {fix}")
    if answer.code != code_version():
        raise ConfigError(
            f"{name} has {answer.code}, and this machine {code_version()}: install the same on all "
            "nodes."
        )


def _sentence(error: Exception) -> str:
    """The last line of an error of Ray, which is the cause."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:300].rstrip(".")
