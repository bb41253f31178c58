"""How long checkpoints take: one JSON object per line in the run's `checkpoint_times.jsonl`.

    {"what": "save" or "restore", "step": ..., "seconds": ...}

The seconds are those for which the run waits; a checkpoint is written in the background after that.
"""

import contextlib
import json
import pathlib

from miras.errors import ConfigError
from miras.runtime import processes
from miras.runtime.files import check_target

NAME = "checkpoint_times.jsonl"


def log_seconds(checkpoints: pathlib.Path, what: str, step: int, seconds: float) -> None:
    """Append a line, in process 0; a file that cannot be written is left as it is."""
    path = checkpoints.parent / NAME
    if processes.first():
        with contextlib.suppress(OSError, ConfigError):
            check_target(path)
            line = {"what": what, "step": step, "seconds": round(seconds, 3)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
