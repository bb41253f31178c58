"""The base of configs: typed frozen dataclasses that convert to and from JSON.

Every configurable object of miras is a frozen dataclass derived from `Config`, which documents its
fields. `overrides` sets fields by path; `comparison` hashes and compares configs.
"""

import dataclasses
import functools
import json
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar, Union, cast

from miras.config.choices import nearest, shown, unknown
from miras.config.mapping import FrozenMapping
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
        mapping: the field of type `FrozenMapping` whose names `override` also takes without it.
    """

    own_levels: ClassVar[int] = 1
    mapping: ClassVar[str | None] = None

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

    def standing(self, name: str) -> Literal["own", "deeper", "hidden"]:
        """How `override` finds a field by its name alone: "hidden" for one without effect."""
        del name
        return "own"

    def unused(self, name: str) -> str:
        """Why a field has no effect; completes "it has no effect here, since "."""
        del name
        return "the mixer does not use it"

    def instead(self, name: str) -> str:
        """What to do instead of setting a field without effect; completes "key ...: "."""
        del name
        return "leave it out"

    def named_entry(self, name: str) -> bool:
        """Whether a name is that of an entry of `mapping`."""
        del name
        return False

    def entry(self, name: str) -> "Config":
        """The entry of `mapping` of this name, or its default.

        Raises:
            ConfigError: there is neither.
        """
        raise NotImplementedError

    def path_of_entry(self, name: str, inner: list[str]) -> list[str]:
        """The path of a field of an entry."""
        return [str(self.mapping), name, *inner]

    def adopt(self, name: str, entry: Any) -> Any:
        """An entry as this config takes it, where it was given by its name."""
        del name
        return entry


def added(default: T) -> T:
    """A field that earlier versions did not have and whose default is their behaviour.

    `config_hash` omits the field while it has its default, so that a config keeps the hash under
    which earlier versions saved it.
    """
    return cast(T, dataclasses.field(default=cast(Any, default), metadata={"added": True}))


def without_effect(default: T) -> T:
    """A field that changes no result, such as where something is computed.

    `config_hash` and `difference` omit it, so that a run can resume with another value.
    """
    return cast(T, dataclasses.field(default=cast(Any, default), metadata={"without_effect": True}))


def own(default: T) -> T:
    """A field whose meaning belongs to its kind, such as a rate, which scales that kind's steps.

    `override` does not carry its value from one kind of part to another.
    """
    return cast(T, dataclasses.field(default=cast(Any, default), metadata={"own": True}))


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
    if origin is FrozenMapping:
        return "a dict of " + describe_type(typing.get_args(hint)[0])
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
        if isinstance(value, tuple(arm for arm in arms if isinstance(arm, type))) and isinstance(
            value, Config
        ):
            return value
        for n, arm in enumerate(arms):
            others = any(hasattr(other, "registry") for other in arms[n + 1 :])
            if others and hasattr(arm, "registry") and not arm.registry.knows(value):
                continue
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
    elif origin is FrozenMapping:
        if isinstance(value, Mapping):
            item = typing.get_args(hint)[0]
            items = {str(name): coerce(v, item, f"{where}.{name}") for name, v in value.items()}
            return FrozenMapping(items)
    elif isinstance(hint, type) and issubclass(hint, Config):
        if isinstance(value, hint):
            return value
        registry = getattr(hint, "registry", None)
        if registry is not None and isinstance(value, (str, Mapping)):
            return registry.build(value)
        if isinstance(value, Mapping):
            return from_dict(hint, value)
        fields = ", ".join(field.name for field in dataclasses.fields(hint))
        raise ConfigError(
            f"{where}={shown(value)} is not a {hint.__name__}: give one, or a dict of its fields "
            f"({fields})."
        )
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
    if isinstance(value, FrozenMapping):
        return {name: _plain(v) for name, v in value.items()}
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
