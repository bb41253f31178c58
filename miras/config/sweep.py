"""Sweeps as plain data: which fields to set to which values, written as products, zips and chains.

A point is a dict from a field's path to its value; a sweep is a tuple of points. They know nothing
of models: `miras.override(config, *assignments(point))` applies one, `miras ablate` trains them.

    product(axis("bias", ["l2", "lp"]), axis("chunk", [16, 64]))    4 points
    zip(axis("width", [64, 128]), axis("heads", [2, 4]))            2 points
    chain(axis("bias", ["l2", "lp"]), axis("chunk", [16, 64]))      4 points, one field set in each
"""

import builtins
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
        values: text as on the command line, or what `text` takes.

    Raises:
        ConfigError: for no path, no value, an empty value, or a value given twice.
    """
    require(bool(path), "an axis has no field: give its path, as in bias or bias.p.")
    points = tuple({path: value} for value in values)
    require(bool(points), f"axis {path!r} has no values: give at least one.")
    require(
        all(text(value) for point in points for value in point.values()),
        f"axis {path!r} has an empty value: give each as in {path}=a,b.",
    )
    _refuse_repeats(points)
    return points


def product(*sweeps: Sweep) -> Sweep:
    """Every combination of one point from each, the last sweep fastest; one empty point for none.

    Raises:
        ConfigError: where two sweeps set one field.
    """
    made: Sweep = ({},)
    for sweep in sweeps:
        made = tuple(_merge(left, right) for left in made for right in sweep)
    return made


def zip(*sweeps: Sweep) -> Sweep:
    """The first points merged, then the second, and so on.

    Raises:
        ConfigError: where lengths differ, or two sweeps set one field.
    """
    lengths = [len(sweep) for sweep in sweeps]
    require(
        len(set(lengths)) <= 1,
        f"zip takes sweeps of one length, not of {', '.join(map(str, lengths))}: product combines "
        "them freely.",
    )
    return tuple(functools.reduce(_merge, points, {}) for points in builtins.zip(*sweeps))


def chain(*sweeps: Sweep) -> Sweep:
    """The points of the first, then those of the second, and so on.

    Raises:
        ConfigError: for a point given twice.
    """
    made = tuple(point for sweep in sweeps for point in sweep)
    _refuse_repeats(made)
    return made


def assignments(point: Mapping[str, Any]) -> tuple[str, ...]:
    """A point as `miras.override` takes it; a part stands before its fields: bias=lp, bias.p=3."""
    inner = {name for path in point for name in path.split(".")[:-1]}

    def order(path: str) -> tuple[bool, int]:
        names = path.split(".")
        is_part = names[-1] in inner
        return (not is_part, len(names) if is_part else 0)

    return tuple(f"{path}={text(point[path])}" for path in sorted(point, key=order))


def text(value: Any) -> str:
    """A value as one would write it on the command line: text as it is, all else as JSON.

    Args:
        value: text, a number, true or false, None, a list or dict of them, or a config.
    """
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return "none"
    return json.dumps(to_dict(value) if isinstance(value, Config) else value)


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> Point:
    both = sorted(left.keys() & right.keys())
    require(not both, f"field {both and both[0]!r} is set twice: give all its values in one axis.")
    return {**left, **right}


def _refuse_repeats(points: Sweep) -> None:
    seen = set()
    for point in points:
        known = frozenset(assignments(point))
        require(
            known not in seen,
            f"{', '.join(assignments(point))} is given twice: leave one out.",
        )
        seen.add(known)
