"""The logger `jsonl`: the measurements of a run in a file, one JSON object per line.

Every line has a `step`, a `kind`: "start" (of a process), "train" (means over the logging
interval), "held_out" or "health" (lists with one number per layer), and the Unix `time`.
"""

import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from miras.runtime.files import check_target, write_atomically
from miras.train.loggers.base import LoggerContext

Line = dict[str, Any]


class Metrics:
    """Appends measurements to a JSONL file, and optionally to a TensorBoard folder.

    The constructor drops the lines after step `after`, so that a run that resumes from an older
    checkpoint has each step once.

    Args:
        jsonl: the file; created if it does not exist.
        tensorboard: a folder named "tensorboard", created if it does not exist; None for none.
        after: the last step whose lines are kept.

    Raises:
        OSError: they cannot be written; `write` raises it too.
    """

    def __init__(self, jsonl: pathlib.Path, tensorboard: pathlib.Path | None, after: int):
        check_target(jsonl)
        _truncate(jsonl, after)
        self._jsonl = jsonl.open("a", encoding="utf-8")
        self._events = None
        if tensorboard is not None:
            from miras.train.loggers.tensorboard import TensorBoard

            self._events = TensorBoard(LoggerContext(tensorboard.parent, {}, after))

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Append one measurement.

        Args:
            step: updates done.
            kind: "start", "train", "held_out" or "health".
            values: numbers, lists with one number per layer, or dicts of these.
        """
        line = {"step": step, "kind": kind, **_finite(dict(values)), "time": round(time.time(), 3)}
        self._jsonl.write(json.dumps(line, allow_nan=False) + "\n")
        self._jsonl.flush()
        if self._events is not None:
            self._events.write(step, kind, values)

    def close(self) -> None:
        """Close the file and the folder."""
        self._jsonl.close()
        if self._events is not None:
            self._events.close()


class JsonLines(Metrics):
    """Writes the file `metrics.jsonl` of a run."""

    def __init__(self, run: LoggerContext):
        super().__init__(run.folder / "metrics.jsonl", None, run.after)


def read_metrics(jsonl: pathlib.Path) -> list[Line]:
    """The valid lines of a metrics file, in order; none if there is no file.

    Lines that are not an object with an integer `step` are skipped.
    """
    if not jsonl.is_file():
        return []
    return parse_metrics(jsonl.read_text(encoding="utf-8", errors="replace"))


def parse_metrics(text: str) -> list[Line]:
    """As `read_metrics`, from the content of the file."""
    lines = []
    for written in text.splitlines():
        try:
            line = json.loads(written)
        except (ValueError, RecursionError):
            continue  # truncated when a run was killed
        if isinstance(line, dict) and type(line.get("step")) is int:
            lines.append(line)
    return lines


def _truncate(jsonl: pathlib.Path, after: int) -> None:
    if not jsonl.exists():
        return
    kept = [json.dumps(line) + "\n" for line in read_metrics(jsonl) if line["step"] <= after]
    write_atomically(jsonl, "".join(kept))


def _finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite, which JSON cannot represent."""
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
