"""Models small enough to trace, off their start so that no gate is constant, and a saved run."""

import functools
import pathlib

import grain
import jax
import pytest
from flax import nnx

import miras
from miras.models import LanguageModel
from miras.train import RunConfig
from miras.train.checkpoints.checkpointer import Checkpoints
from miras.train.optimizer import decay_mask, make_optimizer
from miras.train.runs.run_folder import RunFolder
from miras.train.state import create, structure

SMALL = ("layers=2", "width=16", "heads=2", "chunk=4", "remat=false")
TITANS = ("attention.segment=8", "attention.window=5", "attention.persistent=2")


@functools.cache
def build(name: str, *words: str) -> LanguageModel:
    config = miras.override(miras.preset(name), *SMALL, *TITANS, "vocab=257", *words)
    graph, params = nnx.split(LanguageModel(config, nnx.Rngs(0)), nnx.Param)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    moved = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    return nnx.merge(graph, moved)


def save_run(folder: pathlib.Path, name: str, *words: str) -> pathlib.Path:
    """A run of 7 steps, none of which was made."""
    model = miras.override(miras.preset(name), *SMALL, *words)
    config = RunConfig(model=model)
    place = RunFolder(folder)
    folder.mkdir()
    place.write_config(config)
    optimizer = make_optimizer(config.train, decay_mask(structure(model)[1]))
    saved = Checkpoints(place.checkpoints, keep=1)
    data = iter(grain.MapDataset.range(1).to_iter_dataset())
    saved.save(7, create(model, optimizer, seed=3), data)
    saved.close()
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a run of yaad."""
    return save_run(tmp_path_factory.mktemp("runs") / "mine", "yaad")
