"""miras: sequence models that learn while they read."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras import bias, memory, optim, retention, tasks
    from miras.analysis.equation import equations
    from miras.analysis.strength import match_strength, strength
    from miras.config import config_hash, from_dict, from_json, override, to_dict, to_json
    from miras.engine.state import State
    from miras.errors import ConfigError
    from miras.presets import preset
    from miras.rule.precision import Precision
    from miras.rule.rule import Rule
    from miras.sequence.read import read
    from miras.sequence.scan import scan

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
    "match_strength",
    "memory",
    "optim",
    "override",
    "preset",
    "read",
    "retention",
    "scan",
    "strength",
    "tasks",
    "to_dict",
    "to_json",
]

lazy.package(
    __name__,
    {
        ".config": (
            "ConfigError",
            "config_hash",
            "from_dict",
            "from_json",
            "override",
            "to_dict",
            "to_json",
        ),
        ".analysis.equation": ("equations",),
        ".analysis.strength": ("match_strength", "strength"),
        ".engine.state": ("State",),
        ".presets": ("preset",),
        ".rule": ("Precision", "Rule"),
        ".sequence": ("read", "scan"),
    },
)
