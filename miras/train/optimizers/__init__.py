"""Outer optimisers by name; `miras.train.optimizer` adds what is common to all."""

from miras.train.optimizers.base import (
    Adafactor,
    AdamW,
    AxisNames,
    Lion,
    MuonOptimizer,
    Optimizer,
    Setting,
    by_layer,
    register,
)

__all__ = [
    "Adafactor",
    "AdamW",
    "AxisNames",
    "Lion",
    "MuonOptimizer",
    "Optimizer",
    "Setting",
    "by_layer",
    "register",
]
