"""A run's measurements on disk: one JSON object a line, and the same for TensorBoard.

Every line has `step` and `kind`: "train" (means since the line before), "held_out" or "health"
(lists by layer). Curves are drawn from them in `plot`.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.summary import scalar

from miras.files import check_target, write_whole

Line = dict[str, Any]


class Metrics:
    """Appends measurements to a JSONL file and a TensorBoard folder, in step.

    Opening drops what was written after `after`, so a run that goes on from an older checkpoint
    has each step once. Both files are written at once and not in a thread, as tensorboardX's
    `SummaryWriter` does, which waits for ever once the disk is full.

    Args:
        jsonl: the file; made if need be.
        tensorboard: the folder; made if need be.
        after: the last step to keep, in updates.

    Raises:
        OSError: where they cannot be written; so does `write`.
    """

    def __init__(self, jsonl: pathlib.Path, tensorboard: pathlib.Path, after: int):
        check_target(jsonl)
        _truncate(jsonl, after)
        tensorboard.mkdir(parents=True, exist_ok=True)
        self._jsonl = jsonl.open("a", encoding="utf-8")
        # The suffix keeps a run that goes on within the second from opening the same file.
        self._events = EventsWriter(str(tensorboard / "events"), f".{after}.{os.getpid()}")
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(wall_time=time.time(), step=after + 1, session_log=start))

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Append one measurement.

        Args:
            step: updates done.
            kind: "train", "held_out" or "health".
            values: numbers, lists of numbers by layer, or dicts of them.
        """
        line = {"step": step, "kind": kind, **_finite(dict(values))}
        self._jsonl.write(json.dumps(line, allow_nan=False) + "\n")
        self._jsonl.flush()
        for name, value in _scalars(kind, values):
            event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
            self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        """Close both files."""
        self._jsonl.close()
        self._events.close()


def read_metrics(jsonl: pathlib.Path) -> list[Line]:
    """All whole lines of a metrics file, in order; none where there is no file.

    What is no object with a whole number for its `step` is left out.
    """
    lines = []
    if jsonl.is_file():
        for text in jsonl.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue  # cut short when a run was killed
            if isinstance(line, dict) and type(line.get("step")) is int:
                lines.append(line)
    return lines


def _truncate(jsonl: pathlib.Path, after: int) -> None:
    if not jsonl.exists():
        return
    kept = [json.dumps(line) + "\n" for line in read_metrics(jsonl) if line["step"] <= after]
    write_whole(jsonl, "".join(kept))


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for what is not finite."""
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _scalars(prefix: str, value: Any):
    if isinstance(value, Mapping):
        for name, v in value.items():
            yield from _scalars(f"{prefix}/{name}", v)
    elif isinstance(value, list):
        for layer, v in enumerate(value):
            yield from _scalars(f"{prefix}/layer_{layer}", v)
    else:
        yield prefix, value
