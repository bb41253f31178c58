"""The slowest host of a run of several processes, found without a collective.

All processes do a step together, so a host that is slow makes all of them wait. What tells it from
the others is how long it keeps the devices: the time of a step in which its process does not wait
for them, for data, logging, or because the machine is overloaded. Each process writes this number
to the coordination service, from which process 0 reads what the others last wrote. No device is
involved, and no process waits for another. A chip that is slow cannot be found this way.
"""

import contextlib
import json
from typing import Any, NamedTuple

from miras.runtime import processes

_FOLDER = "miras/host_seconds"


class Host(NamedTuple):
    """A host and its time.

    Attributes:
        process: the number of its process.
        seconds: of a step in which it does not wait for the devices.
    """

    process: int
    seconds: float


def publish(seconds: float) -> None:
    """Let process 0 see a time of this process; nothing in a run of one process."""
    client = _client()
    if client is not None:
        with contextlib.suppress(Exception):  # a measurement must not stop a run
            key = f"{_FOLDER}/{processes.index()}"
            client.key_value_set(key, json.dumps(seconds), allow_overwrite=True)


def slowest() -> Host | None:
    """The host with the longest time; None in a run of one process, or if none are known."""
    client = _client()
    if client is None:
        return None
    with contextlib.suppress(Exception):
        found = client.key_value_dir_get(_FOLDER)
        hosts = [Host(int(key.rpartition("/")[2]), json.loads(value)) for key, value in found]
        return max(hosts, key=lambda host: host.seconds, default=None)
    return None


def _client() -> Any:
    """The client of the coordination service, of which jax has no public name."""
    if processes.count() == 1:
        return None
    from jax._src import distributed

    return distributed.global_state.client
