"""The outer optimiser, which trains the parameters that every sequence starts from.

It updates once a batch; `miras.optim` is the inner algorithm, which updates a memory once a token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.config import require
from miras.train.config import TrainConfig
from miras.train.state import Params
from miras.typing import Array

_FINAL = 0.1  # the cosine ends at this fraction of the peak, as is usual for language models


class Gradient(NamedTuple):
    """A batch's gradient before it is averaged.

    Attributes:
        total: gradient of the sum of the targets' losses, as the parameters.
        targets: number of targets in that sum, float32.
    """

    total: Params
    targets: Array


class MeanState(NamedTuple):
    """State of the transformation that averages.

    Attributes:
        gradient_norm: global norm of the last averaged gradient, before clipping.
        inner: the state of what follows.
    """

    gradient_norm: Array
    inner: optax.OptState


def schedule(config: TrainConfig) -> optax.Schedule:
    """Learning rate by update: linear from 0 to the peak, then a cosine to a tenth of it.

    The first update is made at 1/(warmup + 1) of the peak, so that none is wasted.

    Raises:
        ConfigError: where the warm-up is not shorter than the run. It is told here and not by the
            config, whose fields are set one after the other.
    """
    warmup = config.warmup_steps
    require(
        warmup < config.steps,
        f"train.warmup={warmup} must be less than train.steps={config.steps}: use fewer warm-up "
        "steps, or train for longer.",
    )
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (warmup + 1),
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=config.steps,
        end_value=_FINAL * config.learning_rate,
    )


def decay_mask(params: nnx.State) -> Params:
    """Which parameters decay: matrices, and not the scales and biases, which are vectors.

    What counts is a parameter's shape in one layer and one head. Its axis names tell: "layers" is a
    stack, and so is "heads" before axes that have no name.

    Args:
        params: with their metadata, see `state.structure`.

    Returns:
        A nested dict of bools.
    """

    def is_matrix(variable: nnx.Variable) -> bool:
        axes = [axis for axis in variable.get_metadata("out_sharding") if axis != "layers"]
        stacked = axes[:1] == ["heads"] and not any(axes[1:])
        return len(axes) - stacked >= 2

    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    return nnx.to_pure_dict(jax.tree.map(is_matrix, params, is_leaf=is_variable))


def make_optimizer(config: TrainConfig, decayed: Params) -> optax.GradientTransformation:
    """AdamW on the mean gradient over the targets of `accumulate` batches.

    Batches hold different numbers of targets, so a mean of their mean gradients is not that of the
    batches taken together. `update` therefore takes a `Gradient`, the sum and its count; both
    are accumulated by `optax.MultiSteps`, and their quotient is the large batch's gradient. It is
    clipped and used when the last of the batches has come; until then updates are zero.

    Args:
        config: the recipe.
        decayed: which parameters weight decay applies to, see `decay_mask`.
    """
    inner = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            schedule(config),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )

    def init_mean(params: Gradient) -> MeanState:
        return MeanState(jnp.zeros(()), inner.init(params.total))

    def update_mean(gradient: Gradient, state: MeanState, params: Gradient | None = None):
        assert params is not None
        mean = jax.tree.map(lambda g: g / jnp.maximum(gradient.targets, 1), gradient.total)
        updates, after = inner.update(mean, state.inner, params.total)
        return updates, MeanState(optax.tree.norm(mean), after)

    transform = optax.GradientTransformation(init_mean, update_mean)  # pyright: ignore
    if config.accumulate > 1:
        transform = optax.MultiSteps(transform, config.accumulate).gradient_transformation()

    def weighted(params: Params) -> Gradient:
        return Gradient(params, jnp.zeros(()))

    def init(params: Params) -> optax.OptState:
        return transform.init(weighted(params))

    def update(gradient: Gradient, state: optax.OptState, params: Params = None):
        return transform.update(gradient, state, weighted(params))

    return optax.GradientTransformation(init, update)  # pyright: ignore


def gradient_norm(state: optax.OptState) -> Array:
    """Global norm of the last averaged gradient, before clipping."""
    return optax.tree.get(state, "gradient_norm")
