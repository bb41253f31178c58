"""Training: a run from its config to a folder of logs and checkpoints, and back.

The names are imported when they are first used, so that `command` starts without jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miras.train.answers import Answers
    from miras.train.config import RunConfig, TrainConfig
    from miras.train.evaluate import HeldOut, evaluate_run
    from miras.train.load import Run, load_run
    from miras.train.loop import Result, train
    from miras.train.nonfinite import NonFiniteError

__all__ = [
    "Answers",
    "HeldOut",
    "NonFiniteError",
    "Result",
    "Run",
    "RunConfig",
    "TrainConfig",
    "evaluate_run",
    "load_run",
    "train",
]

_MODULES = {
    "answers": ("Answers",),
    "config": ("RunConfig", "TrainConfig"),
    "evaluate": ("HeldOut", "evaluate_run"),
    "load": ("Run", "load_run"),
    "loop": ("Result", "train"),
    "nonfinite": ("NonFiniteError",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
