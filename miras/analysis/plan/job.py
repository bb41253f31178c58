"""Job: a run on a slice, with the shapes of its state and what of them each chip has."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, AxisType

from miras.analysis.plan.slices import PlannedSlice
from miras.mixers import MixerConfig
from miras.models import LanguageModelConfig
from miras.models.block_config import BlockConfig
from miras.models.objective import Objective
from miras.parallel.config import AXES
from miras.train.config import RunConfig, TrainConfig
from miras.train.objective_of import objective_of
from miras.train.optimizer import axis_names, optimizer_of
from miras.train.sharding import check_fits, check_replicated, state_shardings
from miras.train.state import TrainState, create_from, structure


class Leaf(NamedTuple):
    """An array of the training state.

    Attributes:
        path: its names, "params" or "opt_state" first.
        size: number of elements.
        bytes: of all of it.
        local: bytes that a chip has.
        split: the mesh axes that split it.
    """

    path: tuple[str, ...]
    size: int
    bytes: int
    local: int
    split: tuple[str, ...]


class Job:
    """A run on a slice. Nothing is computed, and no device is needed.

    Attributes:
        config: the run.
        slice: the chips.
        sizes: of the axes of the mesh.
        head: what the model computes outside of its blocks.
        leaves: the training state.

    Raises:
        ConfigError: the mesh does not fit the chips or does not divide the run, or the run's
            objective does not say what its model computes outside of the blocks.
    """

    def __init__(self, config: RunConfig, on: PlannedSlice):
        self.config, self.slice = config, on
        self.sizes = config.mesh.sizes(on.chips)
        axis_types = (AxisType.Auto,) * len(AXES)
        mesh: Any = AbstractMesh(tuple(self.sizes.values()), AXES, axis_types=axis_types)
        check_fits(config, mesh.shape)
        self.head = objective_of(config.data).head(config.model, config.data.sequence)
        state, axes = _state(config)
        shardings = state_shardings(mesh, axes, state)
        check_replicated(config.mesh, mesh, state, shardings)
        self.leaves = tuple(_leaves(state, shardings, self.sizes))

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the activations."""
        return 2 if self.config.model.dtype == "bfloat16" else 4

    @property
    def rows(self) -> int:
        """Rows of a batch that a chip has."""
        return self.config.data.batch // (self.sizes["data"] * self.sizes["fsdp"])

    @property
    def tokens(self) -> int:
        """Tokens of a batch that a chip has, between memories."""
        return self.rows * self.config.data.sequence // self.sizes["seq"]

    @property
    def step_tokens(self) -> int:
        """Tokens of a step, of all chips."""
        data = self.config.data
        return data.batch * data.sequence * self.config.train.accumulate

    @property
    def head_reads(self) -> int:
        """What the head reads on a chip in a batch: tokens, or rows."""
        return self.tokens if self.head.by_token else self.rows

    @property
    def outputs(self) -> int:
        """What the head returns for each of them on a chip."""
        return self.head.outputs // (self.sizes["tensor"] if self.head.by_token else 1)

    @property
    def groups(self) -> int:
        """Turns of the loop over layers."""
        return self.config.model.layers // len(self.config.model.letters)

    @property
    def remat(self) -> str:
        """The policy of rematerialisation by its name."""
        kind = self.config.model.remat
        return {True: "full", False: "none"}[kind] if isinstance(kind, bool) else kind

    def blocks(self) -> Iterator[tuple[BlockConfig, int]]:
        """The blocks of the pattern and the heads of each."""
        model = self.config.model
        for letter in model.letters:
            block = model.block(letter)
            yield block, block.heads or model.heads

    def local(self, *kind: str) -> int:
        """Bytes of the state on a chip whose path begins so."""
        return sum(leaf.local for leaf in self.leaves if leaf.path[: len(kind)] == kind)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in self.leaves if leaf.path[0] == "params")

    @property
    def layer_leaves(self) -> tuple[Leaf, ...]:
        """The parameters that are stacked over layers."""
        return tuple(leaf for leaf in self.leaves if leaf.path[:2] == ("params", "groups"))


def mixers(config: MixerConfig, width: int, heads: int) -> Iterator[tuple[MixerConfig, int, int]]:
    """The mixers that hold no others, of a block; with their widths and heads."""
    held = list(config.mixer.holds(config, width, heads))
    if not held or "rule" in config.mixer.uses:
        yield config, width, heads
        return
    for inner in held:
        yield from mixers(inner.config, inner.width, inner.heads)


def _state(config: RunConfig) -> tuple[TrainState, Any]:
    """The state's shapes, which depend neither on `remat` nor on how a step is cut into batches."""
    model = dataclasses.replace(config.model, remat=True)
    train = dataclasses.replace(config.train, accumulate=1, loss_chunk=None)
    tokens = config.data.batch * config.data.sequence * config.train.accumulate
    return _state_of(model, train, tokens, objective_of(config.data))


@functools.lru_cache(maxsize=32)
def _structure(model: LanguageModelConfig, objective: Objective) -> Any:
    return structure(model, objective)[1]


@functools.lru_cache(maxsize=64)
def _state_of(model: LanguageModelConfig, train: TrainConfig, tokens: int, objective: Objective):
    params = _structure(model, objective)
    optimizer = optimizer_of(train, params, tokens)

    def make() -> TrainState:
        arrays = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nnx.to_pure_dict(params))
        return create_from(arrays, optimizer, train.seed, train.master)

    return jax.eval_shape(make), axis_names(params)


def _leaves(state: TrainState, shardings: Any, sizes: dict[str, int]) -> Iterator[Leaf]:
    placed = jax.tree.leaves(shardings)
    for (path, x), sharding in zip(jax.tree_util.tree_leaves_with_path(state), placed, strict=True):
        names = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        split = tuple(axis for axis in sharding.spec if axis is not None)
        size = math.prod(x.shape)
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        itemsize = 8 if is_key else x.dtype.itemsize
        parts = math.prod(sizes[axis] for axis in split)
        yield Leaf(names, size, size * itemsize, size * itemsize // parts, split)
