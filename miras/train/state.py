"""The training state, one pytree, and the way between it and the model's module tree.

What a step does to it is in `step`; how it reaches the disk is in `checkpoint`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.array_typing import Array
from miras.models import LanguageModel, LanguageModelConfig

Params = Any  # a nested dict of arrays, as `nnx.to_pure_dict` gives it


class TrainState(NamedTuple):
    """All that a run needs to go on, but for its place in the data.

    Attributes:
        params: the model's parameters, a nested dict, float32.
        opt_state: the outer optimiser's state.
        step: updates done, int32.
        key: PRNG key of the run; a step that needs randomness folds `step` into it.
    """

    params: Params
    opt_state: optax.OptState
    step: Array
    key: Array


def structure(config: LanguageModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """A model's static structure and its abstract parameters; nothing is computed."""
    return nnx.split(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0))), nnx.Param)


def create(
    config: LanguageModelConfig, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first step; wrap it in `jax.jit` or `jax.eval_shape`."""
    _, params = nnx.split(LanguageModel(config, nnx.Rngs(seed)), nnx.Param)
    return begin(nnx.to_pure_dict(params), optimizer, seed)


def begin(params: Params, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step with given parameters."""
    return TrainState(
        params=params,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(seed),
    )


def place(tree: Any) -> Any:
    """Put arrays where a run keeps them; a restored state and a new one then compile alike."""
    return jax.device_put(tree, _device())


def abstract(state: TrainState) -> TrainState:
    """The shapes, dtypes and places of a state, as a checkpoint is restored into."""
    where = _device()
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state)


def _device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])
