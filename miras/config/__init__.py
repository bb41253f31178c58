"""Configs: frozen dataclasses with JSON, overrides, registries of members, and plugins."""

from miras.config.base import (
    Config,
    added,
    coerce,
    field_types,
    from_dict,
    from_json,
    own,
    require,
    to_dict,
    to_json,
    without_effect,
)
from miras.config.choices import unknown
from miras.config.comparison import config_hash, difference, difference_of, to_paths
from miras.config.mapping import FrozenMapping
from miras.config.overrides import override
from miras.config.paths import resolve
from miras.errors import ConfigError

__all__ = [
    "Config",
    "ConfigError",
    "FrozenMapping",
    "added",
    "coerce",
    "config_hash",
    "difference",
    "difference_of",
    "field_types",
    "from_dict",
    "from_json",
    "override",
    "own",
    "require",
    "resolve",
    "to_dict",
    "to_json",
    "to_paths",
    "unknown",
    "without_effect",
]
