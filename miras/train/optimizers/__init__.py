"""Outer optimisers by name; the recipe that they share is in `miras.train.optimizer`."""

from miras.train.optimizers.base import (
    Adafactor,
    AdamW,
    AxisNames,
    Lion,
    Muon,
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
    "Muon",
    "Optimizer",
    "Setting",
    "by_layer",
    "register",
]
