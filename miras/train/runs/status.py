"""The state of a run, as a file that other processes read: `status.json` in its folder.

    {"state": "running", "time": ..., "host": ..., "why": ""}

The state is "running", "finished", "preempted" (by a signal, after it has saved) or "failed". While
it is running, a thread of process 0 renews the Unix time every `HEARTBEAT` seconds, also during a
compilation. A run that was killed leaves "running" with an old time.
"""

import contextlib
import json
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

from miras.errors import ConfigError
from miras.runtime import processes, signals
from miras.runtime.files import write_atomically

NAME = "status.json"
HEARTBEAT = 30.0


@contextlib.contextmanager
def recorded(folder: pathlib.Path) -> Iterator[None]:
    """Record the state of the run in the block, in process 0.

    Args:
        folder: of the run, to which this process writes.
    """
    if not processes.first():
        yield
        return
    end = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder, end), name="status", daemon=True)
    _write(folder, "running")
    beat.start()
    state, why = "failed", ""
    try:
        yield
        state = "finished"
    except signals.Interrupted as error:
        state, why = "preempted", str(error)
        raise
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        raise
    finally:
        end.set()
        beat.join()
        _write(folder, state, " ".join(why.split())[:300])


def _beat(folder: pathlib.Path, end: threading.Event) -> None:
    while not end.wait(HEARTBEAT):
        _write(folder, "running")


def _write(folder: pathlib.Path, state: str, why: str = "") -> None:
    content = {
        "state": state,
        "time": round(time.time(), 3),
        "host": socket.gethostname(),
        "why": why,
    }
    with contextlib.suppress(OSError, ConfigError):  # a report must not stop a run
        write_atomically(folder / NAME, json.dumps(content) + "\n")
