"""A Ray cluster as seen before a grid is started: the connection, and what its nodes have.

https://docs.ray.io/en/latest/ray-core/scheduling/resources.html. Ray is the optional extra `ray`,
so it is imported inside functions.
"""

import contextlib
import dataclasses
import importlib.util
import logging
import re
import signal
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from miras.config import require
from miras.errors import ConfigError

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
_OPTIONS = {"CPU": "--cpus", "GPU": "--gpus"}  # resources that have an option of their own
_NOT_CUSTOM = ("memory", "object_store_memory")
_REACH = 10.0  # seconds; Ray itself tries for minutes


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """Which cluster runs the cells of a grid, and what each cell needs.

    Attributes:
        address: "auto" for the cluster to which this machine belongs, or HOST:PORT of its head.
        cpus: cores of a cell, > 0; also the threads of its process.
        gpus: GPUs of a cell, >= 0; below 1, several cells share one.
        resources: amounts > 0 of other resources of a cell, such as {"TPU-v5litepod-8-head": 1}.

    Raises:
        ConfigError: Ray is not installed, or a value is out of range.
    """

    address: str = "auto"
    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        require(
            importlib.util.find_spec("ray") is not None,
            "--ray needs Ray, which is not installed: pip install 'miras-jax[ray]'.",
        )
        require(
            self.address == "auto" or _ADDRESS.fullmatch(self.address) is not None,
            f"--ray {self.address!r} is not the address of a cluster: give auto on one of its "
            "machines, or HOST:PORT of its head, such as 10.0.0.1:6379.",
        )
        _check_amount("--cpus", self.cpus)
        if self.gpus != 0:
            _check_amount("--gpus", self.gpus)
        for name, amount in self.resources.items():
            option = _OPTIONS.get(name)
            require(option is None, f"--resources has no {name}: give its amount with {option}.")
            require(name not in _NOT_CUSTOM, f"--resources cannot ask for {name!r}: leave it out.")
            _check_amount(f"--resources {name}:", amount)

    @property
    def demand(self) -> dict[str, float]:
        """All resources of a cell, by Ray's names."""
        own = {"CPU": self.cpus, "GPU": self.gpus} | dict(self.resources)
        return {name: amount for name, amount in own.items() if amount}

    @property
    def threads(self) -> int:
        """Threads of a cell's process."""
        return max(1, int(self.cpus))


def _check_amount(option: str, amount: float) -> None:
    whole = amount < 1 or amount == int(amount)
    require(
        0 < amount < 1e6 and whole,
        f"{option} {amount:g} must be above 0, and whole from 1 on, as Ray counts resources.",
    )


def parse_resources(text: str) -> dict[str, float]:
    """The resources of a text NAME:AMOUNT[,NAME:AMOUNT...].

    Raises:
        ConfigError: the text is not of this form.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, amount = part.strip().rpartition(":")
        try:
            number = float(amount)
        except ValueError:
            number = None
        if not name or number is None or name in found:
            raise ConfigError(
                f"--resources {text!r} is not of the form NAME:AMOUNT[,NAME:AMOUNT...] with each "
                "name once: give for example TPU-v5litepod-8-head:1."
            )
        found[name] = number
    return found


@contextlib.contextmanager
def connected(options: RayOptions) -> Iterator[list[dict[str, Any]]]:
    """Connect this process to the cluster in the block, unless it is connected already.

    Yields:
        The nodes on which a cell can run, as `ray.nodes()` describes them.

    Raises:
        ConfigError: there is no cluster, or no node has what a cell needs.
    """
    import ray

    if ray.is_initialized():
        yield _fitting(options)
        return
    _check_reached(options.address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tips of Ray
            ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"--ray {options.address} did not connect to a Ray cluster ({reason.rstrip('.')}): "
            "start one with `ray start`, and give this command on one of its machines."
        ) from error
    try:
        yield _fitting(options)
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has set its own


def _check_reached(address: str) -> None:
    if (match := _ADDRESS.fullmatch(address)) is None:
        return
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), _REACH).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray {address} cannot be reached ({error}): start a cluster there with `ray start "
            f"--head --port {match[2]}`, or give the address of one."
        ) from error


def _fitting(options: RayOptions) -> list[dict[str, Any]]:
    """The nodes that have what a cell needs, when nothing else runs on them."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    fitting = [node for node in nodes if places(node, options)]
    if not fitting:
        raise ConfigError(
            f"no node of the Ray cluster has {_listed(options.demand)} for a cell: it has "
            f"{_described(nodes)}; change --cpus, --gpus or --resources, or add a node."
        )
    return fitting


def places(node: Mapping[str, Any], options: RayOptions) -> int:
    """How many cells fit on a node."""
    has = node["Resources"]
    return min(int(has.get(name, 0) / amount) for name, amount in options.demand.items())


def _described(nodes: list[dict[str, Any]]) -> str:
    """What nodes have, those alike together."""
    kinds = Counter(_listed(_named(node["Resources"])) or "nothing" for node in nodes)
    return "; ".join(
        f"{count} node{'s'[: count > 1]} with {kind}" for kind, count in sorted(kinds.items())
    )


def _named(resources: Mapping[str, float]) -> dict[str, float]:
    """Without what every node has, and no cell can ask for."""
    return {
        name: amount
        for name, amount in sorted(resources.items())
        if name not in _NOT_CUSTOM and not name.startswith("node:")
    }


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name}:{amount:g}" for name, amount in resources.items())
