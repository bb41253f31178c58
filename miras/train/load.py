"""A run read from its folder: the model as it was last saved, to measure or to sample from."""

import os
from typing import NamedTuple

import jax
from flax import nnx

from miras.config.trust import trusting
from miras.data import Tokenizer, make_tokenizer
from miras.errors import ConfigError
from miras.models import LanguageModel
from miras.train.checkpoints import checkpointer
from miras.train.config import RunConfig
from miras.train.optimizer import optimizer_of
from miras.train.runs.run_folder import RunFolder
from miras.train.state import abstract, create, structure


class Run(NamedTuple):
    """A run read from its folder.

    Attributes:
        config: what it was started with; its tokenizer is the copy in the folder.
        model: with the parameters of the newest checkpoint that could be read.
        step: the updates that they have seen.
        damaged: newer checkpoints that could not be read, with the reasons.
        tokenizer: the run's.
    """

    config: RunConfig
    model: LanguageModel
    step: int
    damaged: dict[int, str]
    tokenizer: Tokenizer


def load_run(
    out: str | os.PathLike[str], step: int | None = None, *, trust_plugins: bool = False
) -> Run:
    """Read a run's config and a checkpoint; nothing is written.

    The tokenizer is the folder's copy, and relative paths start at the folder in which the run was
    started, so the run's folder may be moved.

    Args:
        out: the run's folder.
        step: of the checkpoint; None is the newest that can be read.
        trust_plugins: execute the code in its `plugins/`, even if this user has not trained it.

    Raises:
        ConfigError: where the folder holds no run, no checkpoint that can be read, or plugins that
            are not trusted; where its tokenizer is not the one that it was trained with.
    """
    folder = RunFolder(out)
    with trusting(trust_plugins):
        config = folder.read_own_config()
    empty = ConfigError(f"{folder.path} holds no checkpoint yet: train it first.")
    if not checkpointer.saved_steps(folder.checkpoints):
        raise empty
    tokenizer = make_tokenizer(config.data.tokenizer)
    graphdef, params = structure(config.model)
    optimizer = optimizer_of(config.train, params)
    like = jax.eval_shape(lambda: create(config.model, optimizer, config.train.seed))
    restored = checkpointer.restore(folder.checkpoints, abstract(like), step=step)
    if restored is None:
        raise empty
    model = nnx.merge(graphdef, restored.state.params)
    return Run(config, model, restored.step, restored.damaged, tokenizer)
