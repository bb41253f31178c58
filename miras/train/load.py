"""Loading a run: its config and its model at a checkpoint."""

import dataclasses
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
from miras.train.objective_of import objective_of
from miras.train.optimizer import optimizer_of
from miras.train.runs.run_folder import RunFolder
from miras.train.state import abstract, create, structure


class Run(NamedTuple):
    """A run read from its folder.

    Attributes:
        config: of the run; its tokenizer is the copy in the folder, its backend "auto".
        model: with the parameters of the checkpoint.
        step: number of updates of these parameters.
        damaged: newer checkpoints that cannot be read, with the reason of each.
        tokenizer: of the run.
    """

    config: RunConfig
    model: LanguageModel
    step: int
    damaged: dict[int, str]
    tokenizer: Tokenizer


def load_run(
    out: str | os.PathLike[str], step: int | None = None, *, trust_plugins: bool = False
) -> Run:
    """Load a run's config and a checkpoint; nothing is written.

    The folder of a run may be moved: it holds a copy of the tokenizer, and relative paths are
    resolved in the directory in which the run was started.

    Args:
        out: the folder of the run.
        step: of the checkpoint; the newest one that can be read by default.
        trust_plugins: execute the code in the folder's `plugins/` even if this user has not trained
            with it.

    Raises:
        ConfigError: the folder holds no run, no checkpoint that can be read, or plugins that are
            not trusted, or its tokenizer is not the one that the run was trained with.
    """
    folder = RunFolder(out)
    with trusting(trust_plugins):
        config = folder.read_relocated_config()
    empty = ConfigError(f"{folder.shown} holds no checkpoint yet: train the run first.")
    if not checkpointer.saved_steps(folder.checkpoints):
        raise empty
    # A run is read where it may not have been trained.
    config = dataclasses.replace(config, model=config.model.replace(backend="auto"))
    tokenizer = make_tokenizer(config.data.tokenizer)
    objective = objective_of(config.data)
    graphdef, params = structure(config.model, objective)
    optimizer = optimizer_of(config.train, params, config.data.batch * config.data.sequence)
    like = jax.eval_shape(
        lambda: create(config.model, optimizer, config.train.seed, config.train.master, objective)
    )
    restored = checkpointer.restore(
        folder.checkpoints, abstract(like), step=step, fetch=folder.fetch
    )
    if restored is None:
        raise empty
    model = nnx.merge(graphdef, restored.state.params)
    return Run(config, model, restored.step, restored.damaged, tokenizer)
