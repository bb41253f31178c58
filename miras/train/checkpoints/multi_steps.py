"""Checkpoints whose optimiser state is that of `optax.MultiSteps`.

Until miras 0.2, runs with `train.accumulate` > 1 accumulated gradients in the optimiser's state. It
was saved between updates, when the accumulator holds zeros, so the state within it is all there is.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from orbax.checkpoint import v1 as ocp

from miras.train.optimizer import Gradient
from miras.train.state import TrainState


def saved_form(path: str, like: TrainState) -> TrainState:
    """The abstract state with the structure of a checkpoint: `like`, or with the accumulator.

    Args:
        path: of the checkpoint.
        like: the abstract state of the run.
    """
    metadata: Any = ocp.checkpointables_metadata(path).metadata
    saved = metadata["state"].get("opt_state")
    if not isinstance(saved, dict) or "mini_step" not in saved:
        return like
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=like.step.sharding)
    targets = jax.ShapeDtypeStruct((), jnp.float32, sharding=like.step.sharding)
    total = jax.tree.map(lambda p: p.update(dtype=jnp.float32), like.params)
    around = optax.MultiStepsState(
        mini_step=count,  # pyright: ignore[reportArgumentType]  abstract
        gradient_step=count,  # pyright: ignore[reportArgumentType]
        inner_opt_state=like.opt_state,
        acc_grads=Gradient(total, targets),  # pyright: ignore[reportArgumentType]
        skip_state=(),
    )
    return like._replace(opt_state=around)


def current_form(state: TrainState) -> TrainState:
    """The state as the optimiser has it now."""
    if not isinstance(state.opt_state, optax.MultiStepsState):
        return state
    return state._replace(opt_state=state.opt_state.inner_opt_state)
