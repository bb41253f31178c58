"""Hashes and differences of configs."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from miras.config.base import Config, to_dict
from miras.config.paths import entries


def config_hash(config: Config) -> str:
    """Twelve hex digits that depend only on the values of a config, not on the field order."""
    text = json.dumps(hashed_values(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def hashed_values(config: Config) -> dict[str, Any]:
    """What `config_hash` depends on, as JSON values."""
    return _hashed(config, without_added=True)


def _hashed(config: Config, *, without_added: bool) -> dict[str, Any]:
    """As `to_dict`, with `hashed_as`, and optionally without `added` fields at their defaults."""
    data = to_dict(config)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        by_default = field.metadata.get("added") and value == field.default
        if field.metadata.get("without_effect") or (without_added and by_default):
            del data[field.name]
        else:
            data[field.name] = _hashed_value(value, data[field.name], without_added)
    return data | config.hashed_as()


def _hashed_value(value: Any, plain: Any, without_added: bool) -> Any:
    """A field's value: `_hashed` for the configs in it, and otherwise its plain JSON value."""
    if isinstance(value, Config):
        return _hashed(value, without_added=without_added)
    if isinstance(value, tuple):
        return [_hashed_value(v, p, without_added) for v, p in zip(value, plain)]
    if isinstance(value, Mapping):
        return {name: _hashed_value(v, plain[name], without_added) for name, v in value.items()}
    return plain


def difference(old: Config, new: Config) -> list[str]:
    """Lines "path: old -> new" for the fields in which two configs differ."""
    before, after = (_hashed(config, without_added=False) for config in (old, new))
    return difference_of(before, after)


def difference_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """As `difference`, for two configs as dicts."""
    before, after = flatten(old), flatten(new)
    missing = "(absent)"
    return [
        f"{path}: {before.get(path, missing)} -> {after.get(path, missing)}"
        for path in {**before, **after}
        if before.get(path, missing) != after.get(path, missing)
    ]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted path."""
    flat = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def to_paths(config: Config) -> list[str]:
    """The paths of all fields and parts, shallowest first: "model", "model.rule.bias.delta"."""
    paths, level = [], [("", config)]
    while level:
        fields = [(p + f.name, getattr(c, f.name)) for p, c in level for f in dataclasses.fields(c)]
        paths += [path for path, _ in fields]
        level = [
            (".".join([path, *name, ""]), child)
            for path, value in fields
            for name, child in entries(value)
        ]
    return paths
