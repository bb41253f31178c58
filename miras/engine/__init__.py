"""The engine: one chunk step and the backends that trace it."""

from miras.engine.scan import scan, scan_with_loss
from miras.engine.state import State, initial_state

__all__ = ["State", "initial_state", "scan", "scan_with_loss"]
