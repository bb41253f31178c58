"""Training: a run from its config to a folder of logs and checkpoints, and back.

The names are imported when they are first used, so that `command` starts without jax.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.train.accuracy import Answers
    from miras.train.config import Parent, RunConfig, TrainConfig
    from miras.train.evaluate import HeldOut, evaluate_run
    from miras.train.load import Run, load_run
    from miras.train.loop import Result, train
    from miras.train.nonfinite import NonFiniteError

__all__ = [
    "Answers",
    "HeldOut",
    "NonFiniteError",
    "Parent",
    "Result",
    "Run",
    "RunConfig",
    "TrainConfig",
    "evaluate_run",
    "load_run",
    "train",
]

lazy.package(
    __name__,
    {
        ".accuracy": ("Answers",),
        ".config": ("Parent", "RunConfig", "TrainConfig"),
        ".evaluate": ("HeldOut", "evaluate_run"),
        ".load": ("Run", "load_run"),
        ".loop": ("Result", "train"),
        ".nonfinite": ("NonFiniteError",),
    },
)
