"""What a table of runs says of each: its state, its last measurements, and how its config differs.

running     a process of this machine holds its lock, or one elsewhere renewed its status lately
finished    it has done all its steps
preempted   a signal stopped it, after it had saved
failed      an error ended it, such as a loss that is not finite
stale       none of these: it was killed, or its machine was
"""

import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from miras.analysis.runs.store import Folder, flat_config, held, read_json, read_lines, run_folders
from miras.runtime import paths
from miras.train.runs.mutable_fields import MUTABLE_FIELDS
from miras.train.runs.status import HEARTBEAT, NAME

_ALIVE = 4 * HEARTBEAT  # seconds since the last heartbeat of a run that is taken to be running
_NO_DIFFERENCE = {"data.cache", "train.compiler_options"} | {
    f"train.{name}" for name in MUTABLE_FIELDS
}


class RunSummary(NamedTuple):
    """A run in a table.

    Attributes:
        name: of its folder.
        state: as above.
        step: of its last measurement.
        steps: that it is to do.
        loss: of its last logged interval, in nats; None before it.
        bits_per_byte: of its last evaluation; None before it, and for tasks.
        tokens_per_second: of its last logged interval.
        goodput: since it began.
        seen: Unix time at which it last wrote; None for runs of earlier versions.
        why: how it was preempted or failed.
        differences: "path=value" of the fields in which the runs of the table differ.
    """

    name: str
    state: str
    step: int
    steps: int
    loss: float | None
    bits_per_byte: float | None
    tokens_per_second: float | None
    goodput: float | None
    seen: float | None
    why: str
    differences: list[str]


def list_runs(root: str | os.PathLike[str]) -> list[RunSummary]:
    """The runs in a folder; those that run first, then the last seen first.

    Args:
        root: as in `run_folders`.

    Raises:
        ConfigError: as in `run_folders`.
    """
    folders = run_folders(root)
    configs = [flat_config(folder) for folder in folders]
    pairs = [pair for pair in zip(folders, configs) if pair[1]]
    told = differences([config for _, config in pairs])
    now = time.time()
    found = [
        _summary(folder, config, lines, now)
        for (folder, config), lines in zip(pairs, told, strict=True)
    ]
    return sorted(found, key=lambda run: (run.state != "running", -(run.seen or 0.0), run.name))


def differences(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each config, its values of the fields in which not all are alike.

    A field that some config does not have, since an earlier version saved it or since it belongs to
    another kind of part, is compared among those that have it.

    Args:
        configs: by path.
    """
    paths_ = {path: None for config in configs for path in config}
    varied = [
        path
        for path in paths_
        if path not in _NO_DIFFERENCE
        and len({repr(config[path]) for config in configs if path in config}) > 1
    ]
    return [
        [f"{_short(path, paths_)}={config[path]}" for path in varied if path in config]
        for config in configs
    ]


def _short(path: str, known: Mapping[str, Any]) -> str:
    """The shortest end of a path that no other path has."""
    parts = path.split(".")
    for first in reversed(range(len(parts))):
        end = ".".join(parts[first:])
        if sum(other == end or other.endswith(f".{end}") for other in known) == 1:
            return end
    return path


def _summary(folder: Folder, config: Mapping[str, Any], told: list[str], now: float) -> RunSummary:
    lines, status = read_lines(folder), read_json(folder / NAME)
    trained = [line for line in lines if line.get("kind") == "train"]
    last = trained[-1] if trained else {}
    steps = given if isinstance(given := config.get("train.steps"), int) else 0
    step = max((line["step"] for line in lines), default=0)
    seen = max(_times(lines, status), default=None)
    return RunSummary(
        name=os.fspath(folder).rstrip("/").rpartition("/")[2],
        state=_state(folder, status, step >= steps > 0, now),
        step=step,
        steps=steps,
        loss=_number(last, "loss"),
        bits_per_byte=_last(lines, "held_out", "bits_per_byte"),
        tokens_per_second=_number(last, "tokens_per_second"),
        goodput=_number(last, "goodput"),
        seen=seen,
        why=str(status.get("why", "")),
        differences=told,
    )


def _state(folder: Folder, status: Mapping[str, Any], complete: bool, now: float) -> str:
    locked = None if paths.is_remote(folder) else held(folder)
    if locked:
        return "running"
    state = status.get("state")
    if state in ("finished", "preempted", "failed"):
        return "finished" if complete and state == "preempted" else str(state)
    if state == "running":
        elsewhere = locked is None or status.get("host") != socket.gethostname()
        alive = now - float(status.get("time", 0.0)) < _ALIVE
        return "running" if elsewhere and alive else "stale"
    return "finished" if complete else "stale"


def _times(lines: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> Iterator[float]:
    for entry in (*lines[-1:], status):
        if isinstance(entry.get("time"), int | float):
            yield float(entry["time"])


def _last(lines: Sequence[Mapping[str, Any]], kind: str, name: str) -> float | None:
    of_kind = [line for line in lines if line.get("kind") == kind]
    return _number(of_kind[-1], name) if of_kind else None


def _number(line: Mapping[str, Any], name: str) -> float | None:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
