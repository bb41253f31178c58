"""miras: sequence models that learn while they read."""

from typing import TYPE_CHECKING

from miras import lazy

if TYPE_CHECKING:
    from miras import bias, memory, optim, retention, tasks
    from miras.config import config_hash, from_dict, from_json, override, to_dict, to_json
    from miras.engine import State, read, scan
    from miras.equation import equations
    from miras.errors import ConfigError
    from miras.precision import Precision
    from miras.presets import preset
    from miras.rule import Rule

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "Precision",
    "Rule",
    "State",
    "bias",
    "config_hash",
    "equations",
    "from_dict",
    "from_json",
    "memory",
    "optim",
    "override",
    "preset",
    "read",
    "retention",
    "scan",
    "tasks",
    "to_dict",
    "to_json",
]

lazy.package(
    __name__,
    {
        ".config": ("config_hash", "from_dict", "from_json", "override", "to_dict", "to_json"),
        ".engine": ("State", "read", "scan"),
        ".equation": ("equations",),
        ".errors": ("ConfigError",),
        ".precision": ("Precision",),
        ".presets": ("preset",),
        ".rule": ("Rule",),
    },
)
