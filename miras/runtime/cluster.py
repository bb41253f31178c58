"""Connects the processes of a run, which each host starts with the same command.

The engine is `jax.distributed`: process 0 runs a coordination service at an address that all
processes know. The environment of a TPU pod, of SLURM and of Open MPI gives the address and the
numbers of the processes, as jax's own cluster detection reads it; elsewhere the user gives them.
"""

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

from miras.errors import ConfigError, fail
from miras.runtime import processes

TIME_LIMIT = 300.0  # seconds; the default of jax.distributed
EXIT_LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed if it is repeated
_HEARTBEAT = 100.0  # seconds without a sign of life; the default of jax.distributed
_LAST = 2.0  # seconds by which process 0 ends after the others
_QUIET = 10.0  # seconds after which a process other than 0 says that it waits


class Cluster(NamedTuple):
    """Where this process belongs.

    Attributes:
        coordinator: HOST:PORT of the coordination service, in process 0.
        processes: number of processes, >= 2.
        process: the number of this one, in [0, processes).
        explicit: whether the user gave all of them, so that the environment is not read.
    """

    coordinator: str
    processes: int
    process: int
    explicit: bool


def connect(
    coordinator: str | None = None,
    number: int | None = None,
    process: int | None = None,
    time_limit: float = TIME_LIMIT,
) -> Cluster | None:
    """Connect this process with the others, if it has any; call it before jax has a backend.

    Without arguments, the environment decides. A process that jax has already connected stays as
    it is.

    Args:
        coordinator: HOST:PORT of process 0; from the environment by default.
        number: of processes; from the environment by default.
        process: the number of this process; from the environment by default.
        time_limit: seconds to wait for the other processes, > 0.

    Returns:
        The place of this process; None for a run of one process.

    Raises:
        ConfigError: the arguments are incomplete or out of range, or the coordinator cannot be
            reached within the time limit. If the other processes do not connect in time, this
            process ends with exit code 2 and one sentence: jax would abort it with a stack trace.
    """
    import jax

    if time_limit <= 0:
        raise ConfigError(f"--time-limit {time_limit:g} must be positive, in seconds.")
    if jax.distributed.is_initialized():
        return None
    found = find(coordinator, number, process, time_limit)
    if found is None:
        return None
    deadline = time.monotonic() + time_limit
    with _announced(found, time_limit):
        if found.process:
            _reach(found, deadline, time_limit)
        with _ended_at(deadline, found, time_limit):
            _initialize(found, time_limit)
    return found


def find(
    coordinator: str | None, number: int | None, process: int | None, time_limit: float
) -> Cluster | None:
    """The cluster that the arguments and the environment describe; None for one process.

    Raises:
        ConfigError: as `connect`.
    """
    given = (coordinator, number, process)
    explicit = None not in given
    if not explicit:
        coordinator, number, process = _detect(*given, time_limit)
    if given == (None, None, None) and number in (None, 1):
        return None
    for name, value in (
        ("--coordinator HOST:PORT", coordinator),
        ("--processes N", number),
        ("--process I", process),
    ):
        if value is None:
            raise ConfigError(
                f"a run of several processes needs {name}, which this environment does not give: "
                "add it to the command of every process."
            )
    assert coordinator is not None
    assert number is not None
    assert process is not None
    if number < 1 or not 0 <= process < number:
        raise ConfigError(
            f"--process {process} --processes {number}: the processes are numbered from 0 to "
            "the number of processes less one."
        )
    _host_and_port(coordinator)
    return None if number == 1 else Cluster(coordinator, number, process, explicit)


def _detect(
    coordinator: str | None, number: int | None, process: int | None, time_limit: float
) -> tuple[str | None, int | None, int | None]:
    """The arguments, and what jax finds in the environment for those that are None."""
    # jax has no public function that detects without connecting.
    from jax._src.clusters import ClusterEnv

    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about Kubernetes without its package
            coordinator, number, process, _ = ClusterEnv.auto_detect_unset_distributed_params(
                coordinator, number, process, [], None, int(time_limit)
            )
        # jax detects Open MPI up to version 4, which alone names an address.
        size, rank = (os.environ.get(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK"))
        if size is not None and rank is not None and number is None:
            number, process = int(size), int(rank) if process is None else process
        return coordinator, number, process
    except Exception as error:  # a malformed environment, or a metadata server that fails
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"the processes of this run cannot be read from the environment ({line}): give "
            "--coordinator HOST:PORT --processes N --process I."
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(f"--coordinator {address!r} is not HOST:PORT, as in 10.0.0.1:8476.")
    return host.strip("[]"), int(port)


def _initialize(found: Cluster, time_limit: float) -> None:
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of a run on CPUs
    try:
        jax.distributed.initialize(
            found.coordinator,
            found.processes,
            found.process,
            cluster_detection_method="deactivate" if found.explicit else None,
            initialization_timeout=int(time_limit) + 60,  # `_ended_at` is earlier
            heartbeat_timeout_seconds=max(1, int(min(_HEARTBEAT, time_limit))),
            shutdown_timeout_seconds=max(1, int(min(TIME_LIMIT, time_limit))),
        )
    except RuntimeError as error:
        line = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"process {found.process} of {found.processes} cannot use the coordinator "
            f"{found.coordinator} ({line}): check the address and that its port is free."
        ) from error


@contextlib.contextmanager
def _announced(found: Cluster, time_limit: float) -> Iterator[None]:
    """Say for whom this process waits: at once in process 0, and late in the others."""
    line = (
        f"miras: process {found.process} of {found.processes}, coordinator {found.coordinator}: "
        f"waiting for the other processes for up to {time_limit:g} s."
    )
    with _after(_QUIET if found.process else 0.0, lambda: print(line, flush=True)):
        yield


def _reach(found: Cluster, deadline: float, time_limit: float) -> None:
    """Wait until the coordinator accepts connections: jax aborts a process that it cannot connect.

    Raises:
        ConfigError: it does not before the deadline.
    """
    reason: OSError | None = None
    while (left := deadline - time.monotonic()) > 0:
        try:
            socket.create_connection(_host_and_port(found.coordinator), min(left, 10)).close()
            return
        except OSError as error:
            reason = error
            time.sleep(min(0.2, max(0.0, left)))
    raise ConfigError(
        f"process {found.process} of {found.processes} could not reach the coordinator "
        f"{found.coordinator} within {time_limit:g} s ({reason}): start process 0 there, check the "
        "address and the firewall, or raise --time-limit."
    )


@contextlib.contextmanager
def _ended_at(deadline: float, found: Cluster, time_limit: float) -> Iterator[None]:
    """End the process with a sentence if the block does not end before the deadline."""

    def end() -> None:
        print(
            f"miras: process {found.process} of {found.processes}: the coordination service at "
            f"{found.coordinator} did not get connections of all {found.processes} processes "
            f"within {time_limit:g} s: start the same command on every host, or raise "
            "--time-limit.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    with _after(max(0.0, deadline - time.monotonic()), end):
        yield


@contextlib.contextmanager
def _after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Act in a thread if the block has not ended after some seconds."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def failures_end_the_process() -> Iterator[None]:
    """End a process of several at once if the block raises, with a sentence and an exit code.

    The interpreter's usual end would wait for processes that still compute. Exit codes: 2 after a
    `ConfigError`, 75 after a `ProcessLostError`, so that a scheduler repeats the command, and 1
    after others. `Interrupted`, and any error of a run of one process, is raised as it is.
    """
    try:
        yield
    except Exception as error:
        if processes.count() == 1:
            raise
        if isinstance(error, processes.ProcessLostError):
            _leave(fail(error, EXIT_LOST))
        if isinstance(error, ConfigError):
            _leave(fail(error, 2))
        traceback.print_exc()
        _leave(1)


def _leave(code: int) -> None:
    """End this process at once.

    Process 0 ends last, since jax aborts the others when the coordination service is gone.
    """
    if processes.first():
        time.sleep(_LAST)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
