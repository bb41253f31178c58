"""The engine: one chunk step and the backends that trace it."""

from typing import TYPE_CHECKING

from miras import lazy

if TYPE_CHECKING:
    from miras.engine.attention import KVState, initial_kv_state, reserve
    from miras.engine.read import read
    from miras.engine.scan import scan, scan_with_loss
    from miras.engine.state import State, initial_state

__all__ = [
    "KVState",
    "State",
    "initial_kv_state",
    "initial_state",
    "read",
    "reserve",
    "scan",
    "scan_with_loss",
]

lazy.package(
    __name__,
    {
        ".attention": ("KVState", "initial_kv_state", "reserve"),
        ".read": ("read",),
        ".scan": ("scan", "scan_with_loss"),
        ".state": ("State", "initial_state"),
    },
)
