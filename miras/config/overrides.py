"""Replaces the parts and fields of a config by assignments such as "bias.delta=0.5"."""

import contextlib
import copy
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from miras.config.base import Config, coerce, field_types, require
from miras.config.choices import clipped, unknown
from miras.config.mapping import FrozenMapping
from miras.config.paths import check_effect, resolve
from miras.errors import ConfigError

C = TypeVar("C", bound=Config)


def override(config: C, *assignments: str) -> C:
    """Replace parts and set fields: `override(config, "bias=huber", "bias.delta=0.5")`.

    A path may omit leading names if the rest is unambiguous: for the config of a run, `bias.delta`
    is `model.rule.bias.delta`. The fields of the config itself, and for the config of a run those
    of `model`, `data` and `train`, take precedence over deeper ones: `steps` is `train.steps` even
    if the algorithm of the rule has `steps`. Any other name that several fields have, or that is a
    synonym of a field (`lr`), is ambiguous. Assignments are applied from left to right, so that a
    part can be replaced before its fields are set; ranges are checked at the end.

    A part changes only in what an assignment names. `algorithm=gd`, or `algorithm.kind=gd`, changes
    nothing where the algorithm is gd. Where it is another, the new part keeps the value of each
    field that both kinds have, by name, if the new kind's field accepts it: `decay`, `link_every`,
    `granularity` of a retention, `momentum`, `window`, `data_dependent` of an algorithm,
    `expansion`, `norm`, `residual`, `eps` of a memory, `sharpness` of a bias. Fields declared by
    `miras.config.own` take the new kind's default: `lr` and `max_lr`, whose values do not compare
    between kinds (`miras.match_strength` sets them), and `steps`, which counts Newton-Schulz
    iterations in one kind and gradient steps in another. A part given as a dict is the whole part:
    fields that it does not name have their defaults.

    Raises:
        ConfigError: an assignment has no "=", a path is unknown or ambiguous, or a value has the
            wrong type.
    """
    for assignment in assignments:
        require(isinstance(assignment, str), f"{assignment!r} must be text such as 'bias=huber'.")
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"{assignment!r} is not of the form key=value, e.g. bias=huber.")
        config = _assign(config, resolve(config, path), text.strip())
    return _checked(config)


def _assign(config: C, path: list[str], text: str) -> C:
    name, rest = path[0], path[1:]
    hints = field_types(type(config))
    if name not in hints:
        for field in dataclasses.fields(config):
            if name in field.metadata.get("also", ()):
                raise ConfigError(
                    f"unknown field of {type(config).__name__} {name!r}: it is {field.name!r} here."
                )
        raise unknown(f"field of {type(config).__name__}", name, hints)
    check_effect(config, name)
    if rest:
        value = _assigned_below(config, name, rest, text)
    else:
        value = _parse(text, hints[name])
        old = getattr(config, name)
        if (
            isinstance(old, Config)
            and isinstance(value, str)
            and not _is_literal(value, hints[name])
        ):
            value = _swapped(old, value)
    value = coerce(value, hints[name], f"{type(config).__name__}.{name}")
    changed = copy.copy(config)  # ranges are checked after all assignments
    object.__setattr__(changed, name, value)
    return changed


def _assigned_below(config: Config, name: str, rest: list[str], text: str) -> Any:
    """The value of a field in which a field below it is set."""
    child = getattr(config, name)
    if isinstance(child, Config):
        return _assign(child, rest, text)
    if isinstance(child, FrozenMapping):
        key, *inner = rest
        item = typing.get_args(field_types(type(config))[name])[0]
        if inner:
            new = _assign(config.entry(key), inner, text)
        else:
            value = _parse(text, item)
            new = coerce(value, item, f"{type(config).__name__}.{name}.{key}")
            new = config.adopt(key, new) if isinstance(value, str) else new
        return FrozenMapping({**child, key: new})
    if isinstance(child, tuple) and rest[0].isdecimal() and int(rest[0]) < len(child) and rest[1:]:
        n = int(rest[0])
        return (*child[:n], _assign(child[n], rest[1:], text), *child[n + 1 :])
    raise ConfigError(f"{name}={child!r} has no field {'.'.join(rest)!r}.")


def _is_literal(word: str, hint: Any) -> bool:
    """Whether a word is one of the strings that a type lists beside configs."""
    return any(word in typing.get_args(arm) for arm in typing.get_args(hint))


def _swapped(old: Config, kind: str) -> Config | str:
    """The part of another kind with the fields that both have; the kind where there is no choice.

    The values are checked with the whole config, after all assignments.
    """
    registry = getattr(type(old), "registry", None)
    if registry is None or not hasattr(old, "kind"):
        return kind
    cls = registry.get(kind)
    if cls is type(old):
        return old
    new = copy.copy(cls())
    own = {*_own_fields(type(old)), *_own_fields(cls)}
    for name in field_types(type(old)).keys() & field_types(cls).keys() - own:
        with contextlib.suppress(ConfigError):  # another type under the same name
            value = coerce(getattr(old, name), field_types(cls)[name], name)
            object.__setattr__(new, name, value)
    return new


def _own_fields(cls: type) -> Iterator[str]:
    """The fields that a class or one that it inherits from declares by `own`."""
    for base in cls.__mro__:
        if dataclasses.is_dataclass(base):
            yield from (f.name for f in dataclasses.fields(base) if f.metadata.get("own"))


def _checked(config: C) -> C:
    """The config reconstructed from its leaves up, so that every `validate` runs."""
    fields = dataclasses.fields(config)
    return type(config)(**{f.name: _checked_value(getattr(config, f.name)) for f in fields})


def _checked_value(value: Any) -> Any:
    if isinstance(value, Config):
        return _checked(value)
    if isinstance(value, tuple):
        return tuple(map(_checked_value, value))
    if isinstance(value, FrozenMapping):
        return FrozenMapping({name: _checked_value(v) for name, v in value.items()})
    return value


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _parse(text: str, hint: Any) -> Any:
    """A value on the command line: text for a string field, otherwise JSON if it is valid."""
    arms = () if typing.get_origin(hint) is FrozenMapping else typing.get_args(hint)
    if hint is str or (str in arms and text.lower() not in ("none", "null")):
        return text
    word = text.lower()
    if _NUMBER.fullmatch(text):  # including .5, 5. and +5, which JSON does not have
        number = float(text)
        whole = math.isfinite(number) and not set(text) & set(".eE")
        return int(text) if whole else number
    if word in ("none", "null") and types.NoneType in arms:
        return None
    if word in ("true", "false"):
        return word == "true"
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.startswith(("{", "[")):
            raise ConfigError(
                f"{clipped(text)} is not valid JSON ({error}): correct it, or quote it."
            ) from error
        return text
