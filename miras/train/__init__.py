"""Training: a run writes logs and checkpoints to a folder, from which it resumes.

Public names are imported on first use, so that the command line starts without jax.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.train.accuracy import Answers
    from miras.train.config import Parent, RunConfig, TrainConfig
    from miras.train.evaluate import evaluate_run
    from miras.train.language_modelling import HeldOut
    from miras.train.load import Run, load_run
    from miras.train.loop import train
    from miras.train.nonfinite import NonFiniteError
    from miras.train.trainer import Result

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
        ".evaluate": ("evaluate_run",),
        ".language_modelling": ("HeldOut",),
        ".load": ("Run", "load_run"),
        ".loop": ("train",),
        ".nonfinite": ("NonFiniteError",),
        ".trainer": ("Result",),
    },
)
