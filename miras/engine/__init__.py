"""The engine: one chunk step and the backends that trace it."""

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
