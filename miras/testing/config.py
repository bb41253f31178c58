"""What every member keeps as a config: data that is frozen, named, written down and found again."""

import dataclasses
import json
from typing import Any, get_args

from miras.config import Config, config_hash, from_dict, override, to_dict
from miras.errors import ConfigError
from miras.parts.gate import Gate, Range, Side
from miras.testing.expect import expect, name_of

_RANGES, _SIDES = get_args(Range), get_args(Side)


def check_config(member: Config, base: type[Config]) -> None:
    """A registered frozen dataclass with docstrings that survives JSON, hashing and overrides.

    Args:
        member: the config object.
        base: the class of its axis, such as `miras.bias.Bias`.
    """
    expect(not isinstance(member, type), f"{member} is a class: give an object, as in Mine().")
    cls, name = type(member), type(member).__name__
    expect(isinstance(member, base), f"{name} is not below {base.__module__}.{base.__name__}.")
    expect(
        "__dataclass_params__" in vars(cls) and vars(cls)["__dataclass_params__"].frozen,
        f"{name} is not decorated with @dataclasses.dataclass(frozen=True): its fields and its "
        "hash are those of its base.",
    )
    registry = base.registry  # pyright: ignore[reportAttributeAccessIssue]
    kind = vars(cls).get("kind")
    expect(
        kind is not None, f"{name} is not registered: decorate it with {registry.group}.register."
    )
    expect(registry.get(kind) is cls, f"{kind!r} is the name of {registry.get(kind)}, not {name}.")
    generated = (cls.__doc__ or "").startswith(f"{name}(")  # what dataclass makes of no docstring
    expect(cls.__doc__ and not generated, f"{name} has no docstring: say its equation and source.")
    _check_data(member)
    _check_overrides(member)
    if hasattr(member, "gates"):
        _check_gates(member)


def _check_data(member: Config) -> None:
    text = json.dumps(to_dict(member))
    again = from_dict(type(member), json.loads(text))
    expect(again == member, f"{name_of(member)} comes back from JSON as {name_of(again)}.")
    expect(config_hash(again) == config_hash(member), f"{name_of(member)}: its hash changes.")
    expect(hash(again) == hash(member), f"{name_of(member)}: equal configs hash differently.")


def _check_overrides(member: Config) -> None:
    for field in dataclasses.fields(member):
        value = getattr(member, field.name)
        if isinstance(value, Config):
            continue
        told = value if isinstance(value, str) else json.dumps(to_dict(member)[field.name])
        changed = override(member, f"{field.name}={told}")
        expect(
            changed == member,
            f"override({name_of(member)}, '{field.name}={told}') gives {name_of(changed)}.",
        )
    try:
        override(member, "no_such_field=1")
    except ConfigError:
        return
    raise AssertionError(f"override({name_of(member)}, 'no_such_field=1') is not refused.")


def _check_gates(member: Any) -> None:
    gates = member.gates()
    expect(isinstance(gates, tuple), f"{name_of(member)}.gates() is no tuple: {gates!r}.")
    for gate in gates:
        expect(
            isinstance(gate, Gate),
            f"{name_of(member)}.gates() holds {gate!r}: use miras.parts.gate.Gate.",
        )
        expect(
            gate.range in _RANGES and gate.side in _SIDES,
            f"{gate} has a range or side that is none of {_RANGES}, {_SIDES}.",
        )
    names = [gate.name for gate in gates]
    expect(len(set(names)) == len(names), f"{name_of(member)} declares a gate twice: {names}.")
