"""Sweeps as plain data: the values of fields, combined by product, zip_points and chain.

A point is a dict from the path of a field to its value; a sweep is a tuple of points.
`miras.override(config, *assignments(point))` applies a point, and `miras ablate` trains a sweep.

    product(axis("bias", ["l2", "lp"]), axis("chunk", [16, 64]))    4 points
    zip_points(axis("width", [64, 128]), axis("heads", [2, 4]))     2 points
    chain(axis("bias", ["l2", "lp"]), axis("chunk", [16, 64]))      4 points, one field set in each
"""

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from miras.config import Config, require, to_dict

Point = dict[str, Any]
Sweep = tuple[Point, ...]


def axis(path: str, values: Iterable[Any]) -> Sweep:
    """One point for each value of one field.

    Args:
        path: of the field, as in `miras.override`: "bias", "bias.p", "chunk".
        values: as accepted by `text`.

    Raises:
        ConfigError: the path or a value is empty, there are no values, or a value is repeated.
    """
    require(bool(path), "an axis has no field: give its path, as in bias or bias.p.")
    points = tuple({path: value} for value in values)
    require(bool(points), f"axis {path!r} has no values: give at least one.")
    require(
        all(text(value) for point in points for value in point.values()),
        f"axis {path!r} has an empty value: give each as in {path}=a,b.",
    )
    _check_unique(points)
    return points


def product(*sweeps: Sweep) -> Sweep:
    """All combinations of one point of each sweep, the last sweep varying fastest.

    Without sweeps it is one empty point.

    Raises:
        ConfigError: two sweeps set the same field.
    """
    made: Sweep = ({},)
    for sweep in sweeps:
        made = tuple(_merge(left, right) for left in made for right in sweep)
    return made


def zip_points(*sweeps: Sweep) -> Sweep:
    """The first points of all sweeps merged, then the second points, and so on.

    Raises:
        ConfigError: the lengths differ, or two sweeps set the same field.
    """
    lengths = [len(sweep) for sweep in sweeps]
    require(
        len(set(lengths)) <= 1,
        f"zip_points takes sweeps of one length, not of {', '.join(map(str, lengths))}: use "
        "product to combine sweeps of different lengths.",
    )
    return tuple(functools.reduce(_merge, points, {}) for points in zip(*sweeps))


def chain(*sweeps: Sweep) -> Sweep:
    """The points of the first, then those of the second, and so on.

    Raises:
        ConfigError: a point is repeated.
    """
    made = tuple(point for sweep in sweeps for point in sweep)
    _check_unique(made)
    return made


def assignments(point: Mapping[str, Any]) -> tuple[str, ...]:
    """The assignments of a point for `miras.override`, each part before its fields."""
    inner = {name for path in point for name in path.split(".")[:-1]}

    def order(path: str) -> tuple[bool, int]:
        names = path.split(".")
        is_part = names[-1] in inner
        return (not is_part, len(names) if is_part else 0)

    return tuple(f"{path}={text(point[path])}" for path in sorted(point, key=order))


def text(value: Any) -> str:
    """A value as on the command line: text unchanged, everything else as JSON.

    Args:
        value: text, a number, true or false, None, a list or dict of them, or a config; anything
            else is named by its `__name__` or `repr`.
    """
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return "none"
    try:
        return json.dumps(to_dict(value) if isinstance(value, Config) else value)
    except TypeError:  # a value for a function of the user's, not for `override`
        return getattr(value, "__name__", repr(value))


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> Point:
    both = sorted(left.keys() & right.keys())
    require(
        not both, f"field {both and both[0]!r} is set twice: give all of its values in one axis."
    )
    return {**left, **right}


def _check_unique(points: Sweep) -> None:
    seen = set()
    for point in points:
        known = frozenset(assignments(point))
        require(
            known not in seen,
            f"{', '.join(assignments(point))} is given twice: remove one.",
        )
        seen.add(known)
