"""What a run has logged of its speed and of its held-out data."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Curve = tuple[tuple[int, dict[str, float]], ...]


class Measurements(NamedTuple):
    """From the log of a run.

    Attributes:
        tokens_per_second: the median over the later half of the logging intervals; None without
            any.
        utilization: the model FLOPs utilisation in them; None where the peak of the device is not
            known.
        curve: the step and the numbers by name of each evaluation on held-out data.
    """

    tokens_per_second: float | None
    utilization: float | None
    curve: Curve


def measurements(lines: Iterable[Mapping[str, Any]]) -> Measurements:
    """The measurements in the lines of a `metrics.jsonl`."""
    lines = list(lines)
    trained = [line for line in lines if line.get("kind") == "train"]
    return Measurements(
        tokens_per_second=_later(trained, "tokens_per_second"),
        utilization=_later(trained, "model_flops_utilization"),
        curve=tuple(
            (line["step"], {name: x for name in line if (x := _score(line, name)) is not None})
            for line in lines
            if line.get("kind") == "held_out"
        ),
    )


def _later(lines: Sequence[Mapping[str, Any]], field: str) -> float | None:
    """The median of a field; the first half, with warm-up, is left out."""
    found = [value for line in lines if (value := _number(line, field)) is not None]
    return statistics.median(found[len(found) // 2 :]) if found else None


def _score(line: Mapping[str, Any], field: str) -> float | None:
    return None if field in ("step", "time") else _number(line, field)


def _number(line: Mapping[str, Any], field: str) -> float | None:
    value = line.get(field)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
