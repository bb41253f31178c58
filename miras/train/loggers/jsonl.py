"""A run's measurements on disk, one JSON object a line; other sinks are in `sinks`.

Every line has `step` and `kind`: "train" (means since the line before), "held_out" or "health"
(lists by layer). Curves are drawn from them in `plot`.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from miras.runtime.files import check_target, write_whole
from miras.train.loggers.base import Opening

Line = dict[str, Any]


class Metrics:
    """Appends measurements to a JSONL file, and to a TensorBoard folder where one is given.

    Opening drops what was written after `after`, so a run that goes on from an older checkpoint
    has each step once.

    Args:
        jsonl: the file; made if need be.
        tensorboard: the folder, whose name is "tensorboard"; made if need be.
        after: the last step to keep, in updates.

    Raises:
        OSError: where they cannot be written; so does `write`.
    """

    def __init__(self, jsonl: pathlib.Path, tensorboard: pathlib.Path | None, after: int):
        check_target(jsonl)
        _truncate(jsonl, after)
        self._jsonl = jsonl.open("a", encoding="utf-8")
        self._events = None
        if tensorboard is not None:
            from miras.train.loggers.tensorboard import TensorBoard

            self._events = TensorBoard(Opening(tensorboard.parent, {}, after))

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
        if self._events is not None:
            self._events.write(step, kind, values)

    def close(self) -> None:
        """Close both."""
        self._jsonl.close()
        if self._events is not None:
            self._events.close()


class JsonLines(Metrics):
    """The sink `jsonl`: the file `metrics.jsonl` of a run."""

    def __init__(self, run: Opening):
        super().__init__(run.folder / "metrics.jsonl", None, run.after)


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
