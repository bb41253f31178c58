"""The training state: one pytree, made from the parameters of a model.

`step` updates it; `checkpoints` saves and restores it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.array_typing import Array
from miras.models import LanguageModelConfig
from miras.models.objective import Objective
from miras.train.language_modelling import TEXT

Params = Any  # a nested dict of arrays, as `nnx.to_pure_dict` gives it


class TrainState(NamedTuple):
    """Everything that a run needs to resume, except its data position.

    Attributes:
        params: the model's parameters, a nested dict, in `train.master`.
        opt_state: of the outer optimiser.
        step: updates done, int32.
        key: PRNG key of the run; a step that needs randomness folds `step` into the key.
    """

    params: Params
    opt_state: optax.OptState
    step: Array
    key: Array


def structure(
    config: LanguageModelConfig, objective: Objective = TEXT
) -> tuple[nnx.GraphDef, nnx.State]:
    """The static structure and the abstract parameters of a model; nothing is computed."""
    return nnx.split(nnx.eval_shape(lambda: objective.build(config, nnx.Rngs(0))), nnx.Param)


def create(
    config: LanguageModelConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
    master: str = "float32",
    objective: Objective = TEXT,
) -> TrainState:
    """The state before the first step; call it within `jax.jit` or `jax.eval_shape`."""
    _, params = nnx.split(objective.build(config, nnx.Rngs(seed)), nnx.Param)
    return create_from(nnx.to_pure_dict(params), optimizer, seed, master)


def create_from(
    params: Params,
    optimizer: optax.GradientTransformation,
    seed: int,
    master: str = "float32",
) -> TrainState:
    """The state before the first step, with the given parameters, which are kept in `master`."""
    if master != "float32":
        params = jax.tree.map(lambda p: p.astype(master), params)
    return TrainState(
        params=params,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(seed),
    )


def abstract(state: TrainState, shardings: TrainState | None = None) -> TrainState:
    """The shapes, dtypes and shardings of a state, into which a checkpoint is restored.

    Args:
        state: of arrays or shapes.
        shardings: of each array; all on the first device of this process if not given.
    """
    if shardings is None:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: device, state)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        shardings,
    )
