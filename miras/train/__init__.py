"""Training: a run from its config to a folder of logs and checkpoints, and back."""

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
