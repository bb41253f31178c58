"""A Ray cluster of two local nodes that a test can kill, and a worker that leaves traces there."""

import contextlib
import os
import pathlib
import signal
import time

from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.jobs import RunObserver, train_all
from miras.analysis.ablate.ray_cluster import RayOptions, connected
from miras.analysis.ablate.ray_tasks import RayTasks

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
# A dead node is found in a second; one that is only slow, as a loaded machine's, counts as alive.
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 3,
}

# Holds the folder and ends with its parent as the real worker does. Each step is a line "PID STEP"
# in `written`, which is also its checkpoint. It takes five steps, and more until `go` exists.
STEPS = """
import json, os, pathlib, signal, sys, threading, time
from miras.train.runs import lease
from miras.train.runs.disk_lock import DiskLock
lease.HEARTBEAT, lease.EXPIRY = 0.2, 2.0
folder = pathlib.Path(sys.argv[1])
sys.stdin.readline()
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(143)), daemon=True).start()
def save(*_):
    (folder / "saved").touch()
    sys.exit(143)
def train():
    written, first = folder / "written", 0
    if written.exists():
        first = int(written.read_text().split()[-1]) + 1
    step = first
    while step < first + 5 or not (folder.parent.parent / "go").exists():
        with written.open("a") as file:
            file.write(f"{os.getpid()} {step}\\n")
        step += 1
        time.sleep(0.05)
    name = folder.name.rsplit("-", 1)[1]
    outcome = dict(config_hash=name, status="done", bits_per_byte=2 + int(name[:4], 16) / 2**16,
                   steps=2, seconds=0.1, parameters=100)
    (folder / "outcome.json").write_text(json.dumps(outcome))
signal.signal(signal.SIGTERM, save)
while True:
    try:
        with DiskLock(folder).held():
            sys.exit(train())
    except lease.InUseError as error:
        print("waiting:", error)
        time.sleep(0.2)
"""


class Nodes:
    """A cluster of a head, which runs no cells, and two nodes with a place for one cell each.

    Args:
        scratch: a folder in which each node has one of its own for temporary files; None for one of
            the machine.
    """

    def __init__(self, scratch=None):
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            True, head_node_args={**NODE, "num_cpus": 0, "_system_config": HEALTH}
        )
        self.address, self._scratch, self._number = str(self._cluster.address), scratch, 0
        for _ in range(2):
            self.add()

    @classmethod
    @contextlib.contextmanager
    def started(cls, scratch=None):
        """A cluster, which is shut down at the end of the block.

        SIGINT is ignored in its processes, as in those that a script starts with `&`. A node that
        needs 15 seconds for its first processes, on a loaded machine, crashes, so that a start is
        tried three times (https://github.com/ray-project/ray/issues/65983).
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            found = cls._tried(scratch)
        finally:
            signal.signal(signal.SIGINT, previous)
        try:
            yield found
        finally:
            found._cluster.shutdown()

    @classmethod
    def _tried(cls, scratch):
        for tries in (2, 1, 0):
            try:
                return cls(scratch)
            except Exception:  # Ray's has no other type
                if not tries:
                    raise
        return None

    def add(self):
        """Add a node with a place for one cell."""
        own = {}
        if self._scratch is not None:
            folder = self._scratch / str(self._number)
            folder.mkdir(parents=True, exist_ok=True)
            own = {"env_vars": {"TMPDIR": str(folder)}}
        self._number += 1
        self._cluster.add_node(**NODE, **own, resources={"host": 1})

    def kill(self, worker):
        """Kill the node of a worker and Ray's process of its task, on which the worker ends."""
        self._kill(worker)
        until(lambda: not _alive(worker), 20)

    @contextlib.contextmanager
    def losing(self, worker):
        """As `kill`, but the worker lives during the block, since its standard input is open."""
        held = os.open(f"/proc/{worker}/fd/0", os.O_WRONLY)
        try:
            self._kill(worker)
            yield
            assert _alive(worker)
        finally:
            os.close(held)
        until(lambda: not _alive(worker), 20)

    def _kill(self, worker):
        task = _parent(worker)
        (node,) = [
            node for node in self._cluster.worker_nodes if _raylet(node).pid == _parent(task)
        ]
        _raylet(node).kill()
        _raylet(node).wait()
        with contextlib.suppress(ProcessLookupError):  # it ends with its node, a second later
            os.kill(task, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)  # what is left of it


def _alive(process):
    return os.path.exists(f"/proc/{process}")


def _raylet(node):
    return node.all_processes["raylet"][0].process


def _parent(process):
    """The number of a process's parent."""
    text = pathlib.Path(f"/proc/{process}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])


class Places(RunObserver):
    """Where each run was started, in order.

    Args:
        then: called with a run after it was started.
    """

    def __init__(self, then=lambda run: None):
        self.of, self._then = {}, then

    def started(self, run, place):
        self.of.setdefault(run, []).append(place)
        self._then(run)


def train(grid, path, nodes, observer=None):
    """Train a grid on the cluster, one run on each node at a time."""
    options, folder = RayOptions(nodes.address, resources={"host": 1}), GridFolder(path)
    with connected(options) as found, folder.opened(grid, shared=True):
        return train_all(grid, folder, RayTasks(folder, options, found), observer)


def writers(folder):
    """The steps that each process has written in the folder of a run of `STEPS`, in order."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "written").read_text().splitlines():
            process, step = map(int, line.split())
            found.setdefault(process, []).append(step)
    return found


def until(reached, seconds=60):
    """Wait until a function returns something true."""
    limit = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.02)
