"""The objective of a run, from the config of its data."""

from miras.data import DataConfig, vocabulary
from miras.models.objective import Objective
from miras.train.accuracy import Answering
from miras.train.language_modelling import TEXT


def objective_of(data: DataConfig) -> Objective:
    """What a run on this data trains and measures: text, answers, or what its task brings.

    Raises:
        ConfigError: the tokenizer cannot be used.
    """
    if data.task is None:
        return TEXT
    return data.task.objective(data) or Answering(vocabulary(data))
