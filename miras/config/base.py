"""Configs: typed frozen dataclasses with JSON, overrides and a stable hash.

Every configurable object of miras is a frozen dataclass derived from `Config`. The classes document
their fields; this module checks, converts and compares them.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import math
import numbers
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar, Union, cast

from miras.config.choices import clipped, nearest, shown, unknown
from miras.errors import ConfigError

C = TypeVar("C", bound="Config")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of all configs: checks the type of every field, then calls `validate`.

    A field's metadata may list synonyms under `also`, for which `override` raises an error that
    names the field. Use `added` for a field that earlier versions did not have.

    Attributes:
        own_levels: the depth to which `override` prefers a field to deeper ones of the same name.
    """

    own_levels: ClassVar[int] = 1

    def __post_init__(self):
        hints = field_types(type(self))
        for field in dataclasses.fields(self):
            where = f"{type(self).__name__}.{field.name}"
            value = coerce(getattr(self, field.name), hints[field.name], where)
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self) -> None:
        """Raise `ConfigError` if fields are out of range or incompatible."""

    def hashed_as(self) -> dict[str, Any]:
        """Values that replace those of fields without effect in `config_hash` and `difference`."""
        return {}


def added(default: T) -> T:
    """A field that earlier versions did not have and whose default is their behaviour.

    `config_hash` omits the field while it has its default, so that a config keeps the hash under
    which earlier versions saved it.
    """
    return cast(T, dataclasses.field(default=cast(Any, default), metadata={"added": True}))


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The resolved type of each field of a config class."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def describe_type(hint: Any) -> str:
    """A field type in words: "a number", "one of 'layer', 'rms'"."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(a) for a in typing.get_args(hint))
    if origin is tuple:
        return "a list of " + describe_type(typing.get_args(hint)[0])
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    if hint is types.NoneType:
        return "none"
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def coerce(value: Any, hint: Any, where: str) -> Any:
    """The value converted to a type.

    Raises:
        ConfigError: it cannot be converted; the message starts with `where`.
    """
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        arms = typing.get_args(hint)
        if value is None and types.NoneType in arms:
            return None
        for arm in arms:
            try:
                return coerce(value, arm, where)
            except ConfigError:
                if hasattr(arm, "registry"):  # its error lists the legal names
                    raise
    elif origin is Literal:
        for legal in typing.get_args(hint):
            if value == legal and type(value) is type(legal):
                return legal
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            item = typing.get_args(hint)[0]
            return tuple(coerce(v, item, where) for v in value)
    elif isinstance(hint, type) and issubclass(hint, Config):
        if isinstance(value, hint):
            return value
        registry = getattr(hint, "registry", None)
        if registry is not None and isinstance(value, (str, Mapping)):
            return registry.build(value)
        if isinstance(value, Mapping):
            return from_dict(hint, value)
    elif hint in (int, float) and isinstance(value, numbers.Real) and type(value) is not bool:
        number = _number(value, hint)
        if hint is int and number is not None and not -(2**63) <= number < 2**63:
            raise ConfigError(f"{where}={shown(value)} must lie in [-2**63, 2**63).")
        if number is not None:
            return number
        if hint is float:
            raise ConfigError(f"{where}={shown(value)} must be finite.")
    elif isinstance(hint, type) and type(value) is hint:
        return value
    near = nearest(value, _literals_of(hint)) if isinstance(value, str) else ()
    hinted = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"{where}={shown(value)} is not {describe_type(hint)}{hinted}")


def _number(value: numbers.Real, hint: type) -> float | int | None:
    """A number as an int or a float; None if it cannot be converted."""
    if hint is int and isinstance(value, numbers.Integral):
        return int(value)
    try:
        number = float(value)
    except OverflowError:
        return None
    if hint is int:
        return int(number) if number.is_integer() else None
    return number if math.isfinite(number) else None


def _literals_of(hint: Any) -> list[str]:
    """The strings that a type lists as legal."""
    if typing.get_origin(hint) is Literal:
        return [word for word in typing.get_args(hint) if isinstance(word, str)]
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [word for arm in typing.get_args(hint) for word in _literals_of(arm)]
    return []


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON values; a registered part has its `kind` first."""
    kind = {"kind": config.kind} if hasattr(config, "kind") else {}  # pyright: ignore
    return kind | {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def from_dict(cls: type[C], data: Mapping[str, Any]) -> C:
    """The inverse of `to_dict`; missing fields have their defaults.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or a field without a default is
            missing.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{shown(data)} is not a mapping of the fields of {cls.__name__}.")
    legal = [f.name for f in dataclasses.fields(cls)]
    kind = getattr(cls, "kind", None)
    given = {k: v for k, v in data.items() if not (k == "kind" and v == kind)}
    for name in given:
        if name not in legal:
            raise unknown(f"field of {cls.__name__}", name, legal)
    for field in dataclasses.fields(cls):
        given_by_default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if field.name not in given and not given_by_default:
            raise ConfigError(f"{cls.__name__} has no {field.name!r}: give the output of to_dict.")
    return cls(**given)


def to_json(config: Config, indent: int | None = 2) -> str:
    """The config as JSON text, in field order."""
    return json.dumps(to_dict(config), indent=indent)


def from_json(cls: type[C], text: str) -> C:
    """The inverse of `to_json`.

    Raises:
        ConfigError: the text is not JSON, or as in `from_dict`.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON ({error}): give the output of to_json.") from error
    return from_dict(cls, data)


def config_hash(config: Config) -> str:
    """Twelve hex digits that depend only on the values of a config, not on the field order."""
    text = json.dumps(_hashed(config, without_added=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hashed(config: Config, *, without_added: bool) -> dict[str, Any]:
    """As `to_dict`, with `hashed_as`, and optionally without `added` fields at their defaults."""
    data = to_dict(config)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if without_added and field.metadata.get("added") and value == field.default:
            del data[field.name]
        elif isinstance(value, Config):
            data[field.name] = _hashed(value, without_added=without_added)
    return data | config.hashed_as()


def difference(old: Config, new: Config) -> list[str]:
    """Lines "path: old -> new" for the fields in which two configs differ."""
    before, after = (_hashed(config, without_added=False) for config in (old, new))
    return difference_of(before, after)


def difference_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """As `difference`, for two configs as dicts."""
    before, after = _flatten(old), _flatten(new)
    missing = "(absent)"
    return [
        f"{path}: {before.get(path, missing)} -> {after.get(path, missing)}"
        for path in {**before, **after}
        if before.get(path, missing) != after.get(path, missing)
    ]


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def to_paths(config: Config) -> list[str]:
    """The paths of all fields and parts, shallowest first: "model", "model.rule.bias.delta"."""
    paths, level = [], [("", config)]
    while level:
        fields = [(p + f.name, getattr(c, f.name)) for p, c in level for f in dataclasses.fields(c)]
        paths += [path for path, _ in fields]
        level = [(f"{path}.", value) for path, value in fields if isinstance(value, Config)]
    return paths


def override(config: C, *assignments: str) -> C:
    """Replace parts and set fields: `override(config, "bias=huber", "bias.delta=0.5")`.

    A path may omit leading names if the rest is unambiguous: for the config of a run, `bias.delta`
    is `model.rule.bias.delta`. The fields of the config itself, and for the config of a run those
    of `model`, `data` and `train`, take precedence over deeper ones: `steps` is `train.steps` even
    if the algorithm of the rule has `steps`. Any other name that several fields have, or that is a
    synonym of a field (`lr`), is ambiguous. Assignments are applied from left to right, so that a
    part can be replaced before its fields are set; ranges are checked at the end.

    Raises:
        ConfigError: an assignment has no "=", a path is unknown or ambiguous, or a value has the
            wrong type.
    """
    for assignment in assignments:
        require(isinstance(assignment, str), f"{assignment!r} must be text such as 'bias=huber'.")
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"{assignment!r} is not of the form key=value, e.g. bias=huber.")
        config = _assign(config, _resolve(config, path.strip().split(".")), text.strip())
    return _checked(config)


def _resolve(config: Config, path: list[str]) -> list[str]:
    """The full path from the root of the config."""
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
    value = coerce(value, hints[name], f"{type(config).__name__}.{name}")
    changed = copy.copy(config)  # ranges are checked after all assignments
    object.__setattr__(changed, name, value)
    return changed


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
