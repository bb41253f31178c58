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


def resolve(config: Config, path: str) -> list[str]:
    """The names from the root of a config to the field that a path of `override` means.

    Raises:
        ConfigError: the first name of the path is unknown or ambiguous.
    """
    names = [name.strip() for name in path.split(".")]
    found = _resolve(config, names)
    return found[:-1] if len(found) > 1 and found[-1] == "kind" else found


def _resolve(config: Config, path: list[str]) -> list[str]:
    own, deeper, also, seen = [], [], [], []
    level: list[tuple[list[str], Config]] = [([], config)]
    depth = 0
    while level:
        depth += 1
        below = []
        for prefix, part in level:
            for field in dataclasses.fields(part):
                where = [*prefix, field.name]
                seen.append(".".join(where))
                if field.name == path[0]:
                    (own if depth <= config.own_levels else deeper).append(where)
                elif path[0] in field.metadata.get("also", ()):
                    also.append(where)
                if isinstance(child := getattr(part, field.name), Config):
                    below.append((where, child))
        level = below
    found = (own or deeper) + also
    if len(found) == 1 and not also:
        return found[0] + path[1:]
    if found:
        full = ", ".join(".".join(where + path[1:]) for where in found)
        many = f"is ambiguous: write one of {full}" if len(found) > 1 else f"is here {full}: use it"
        raise ConfigError(f"key {path[0]!r} {many}.")
    names = dict.fromkeys(name.rsplit(".", 1)[-1] for name in seen)
    raise unknown("key", ".".join(path), seen, spellings=names, see="the `config.json` of any run")


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
    if rest:
        child = getattr(config, name)
        if not isinstance(child, Config):
            raise ConfigError(f"{name}={child!r} has no field {'.'.join(rest)!r}.")
        value = _assign(child, rest, text)
    else:
        value = _parse(text, hints[name])
        if isinstance(old := getattr(config, name), Config) and isinstance(value, str):
            value = _swapped(old, value)
    value = coerce(value, hints[name], f"{type(config).__name__}.{name}")
    changed = copy.copy(config)  # ranges are checked after all assignments
    object.__setattr__(changed, name, value)
    return changed


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
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return type(config)(
        **{n: _checked(v) if isinstance(v, Config) else v for n, v in fields.items()}
    )


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _parse(text: str, hint: Any) -> Any:
    """A value on the command line: text for a string field, otherwise JSON if it is valid."""
    arms = typing.get_args(hint)
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
