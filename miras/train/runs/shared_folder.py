"""Checks that all processes of a run see its folder, and agree on what they are about to run."""

import hashlib
import json
import pathlib
import secrets
import socket
import time
from typing import Any

from miras.config import config_hash, to_dict
from miras.config.comparison import difference_of
from miras.errors import ConfigError
from miras.runtime import processes
from miras.runtime.code_version import code_version
from miras.runtime.files import write_atomically
from miras.train.config import RunConfig

TOKEN = "processes"  # the file by which the processes find out that they see one folder
_VISIBLE = 30.0  # seconds; a network file system shows a new file late


def check_seen(folder: pathlib.Path, limit: float = _VISIBLE) -> None:
    """Check that all processes see the run's folder, which process 0 creates.

    Args:
        folder: of the run.
        limit: seconds that a file of process 0 may take to be visible elsewhere.

    Raises:
        ConfigError: process 0 cannot write there, or some process does not see what it wrote; the
            message names both values.
    """
    if processes.count() == 1:
        return

    def write() -> list[str]:
        token = secrets.token_hex(8)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TOKEN, token + "\n")
        return [token, socket.gethostname()]

    token, host = processes.decide(write)

    def read() -> None:
        end = time.monotonic() + limit
        while (found := _read(folder / TOKEN)) != token and time.monotonic() < end:
            time.sleep(0.1)
        if found != token:
            raise ConfigError(
                f"{folder.absolute()} on {socket.gethostname()} is not the run folder that process "
                f"0 sees on {host}: its file {TOKEN!r} has {found!r}, and process 0 wrote "
                f"{token!r}: give a folder of a file system that all hosts share with --out."
            )

    processes.together(read)
    processes.decide(lambda: (folder / TOKEN).unlink(missing_ok=True))


def check_agreement(config: RunConfig, position: Any) -> None:
    """Check that all processes run the same config, code and data.

    Args:
        config: the run.
        position: of the training data before the first batch, which identifies it, as JSON values.

    Raises:
        ConfigError: they do not; the message names both values.
    """
    if processes.count() == 1:
        return
    own = json.dumps([config_hash(config), to_dict(config)])
    found = [json.loads(text) for text in processes.gather(own)]
    first_hash, first = found[0]
    for number, (other_hash, other) in enumerate(found):
        if lines := difference_of(first, other):
            raise ConfigError(
                f"the processes of this run differ in its config ({'; '.join(lines)}, process 0 -> "
                f"process {number}; config hashes {first_hash} and {other_hash}): start the same "
                "command on every host."
            )
    processes.check_equal(
        {"the code": code_version()}, "install the same versions of miras and jax on every host."
    )
    processes.check_equal(
        {"the data": _hash(json.dumps(position, sort_keys=True).encode())},
        "every host must read the same files; `data.source` must name the same content.",
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
