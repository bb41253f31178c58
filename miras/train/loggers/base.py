"""The contract of a logger, which takes the measurements of a run.

To add one, implement `Logger` in a file and pass `--logger FILE.py:CLASS`.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class LoggerContext(NamedTuple):
    """The argument of a logger's constructor.

    Attributes:
        folder: of the run; it exists.
        config: of the run, as plain JSON values.
        after: the step from which the run resumes; 0 for a new run.
    """

    folder: pathlib.Path
    config: Mapping[str, Any]
    after: int


class Logger(Protocol):
    """Takes the measurements of a run; constructed with a `LoggerContext`, in process 0 only.

    Its methods may raise any exception: the run prints a warning and continues without the logger.
    """

    def __init__(self, run: LoggerContext): ...

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Take one measurement.

        Args:
            step: updates done. A resumed run may write a step twice.
            kind: "start" (of a process, before its first step), "train" (means over the logging
                interval), "held_out" or "health".
            values: numbers, lists with one number per layer, or dicts of these.
        """
        ...

    def close(self) -> None:
        """Release resources; called once, when the run ends."""
        ...


def scalars(prefix: str, value: Any) -> dict[str, float]:
    """The numbers of a measurement by name, as "health/norm/layer_0" for a list by layer.

    NaN and infinity, such as the mean of a gate that a layer's block does not have, are left out.
    """
    if isinstance(value, Mapping):
        items = [(f"{prefix}/{name}", v) for name, v in value.items()]
    elif isinstance(value, list):
        items = [(f"{prefix}/layer_{layer}", v) for layer, v in enumerate(value)]
    else:
        return {prefix: value} if math.isfinite(value) else {}
    return {name: x for key, v in items for name, x in scalars(key, v).items()}
