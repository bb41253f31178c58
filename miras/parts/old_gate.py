"""`Gate` of version 0.1, where its role followed from its name; for plugins that runs keep."""

from typing import Any

from miras.parts import gate
from miras.parts.gate import Range, Side

_ROLES: dict[str, gate.Role] = {"lr": "rate", "log_momentum": "momentum", "weight": "weight"}


def named_gate(name: str, *args: Any, **fields: Any) -> gate.Gate:
    """A gate with the role of its name: one with "decay" in it is a log decay."""
    role = "decay" if "decay" in name else _ROLES.get(name)
    return gate.Gate(name, *args, **{"role": role, **fields})


Gate = named_gate

__all__ = ["Gate", "Range", "Side"]
