"""The outer optimiser, which trains the parameters that every sequence starts from.

It updates once a batch; `miras.optim` is the inner algorithm, which updates a memory once a token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.array_typing import Array
from miras.config import require
from miras.train.config import TrainConfig
from miras.train.optimizers import AxisNames, Setting
from miras.train.state import Params

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
    """Learning rate by update: linear from 0 to the peak, then as `train.schedule` says.

    With n updates in all and t done, after the warm-up:

        cosine    from the peak to a tenth of it at n
        constant  the peak
        wsd       the peak, and peak (1 - sqrt((t - n + c) / c)) over the last c = `cooldown`
                  updates: warm-up, stable, decay (2404.06395) with the decay of 2405.18392

    The first update is made at 1/(warmup + 1) of the peak, so that none is wasted.

    Raises:
        ConfigError: where warm-up and decay do not fit into the run. It is told here and not by
            the config, whose fields are set one after the other.
    """
    warmup, peak = config.warmup_steps, config.learning_rate
    require(
        warmup < config.steps,
        f"train.warmup={warmup} must be less than train.steps={config.steps}: use fewer warm-up "
        "steps, or train for longer.",
    )
    first = peak / (warmup + 1)
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=first,
            peak_value=peak,
            warmup_steps=warmup,
            decay_steps=config.steps,
            end_value=_FINAL * peak,
        )
    parts, starts = [optax.constant_schedule(peak)], []
    if warmup:
        parts, starts = [optax.linear_schedule(first, peak, warmup), *parts], [warmup]
    if config.schedule == "wsd":
        cooldown = config.cooldown_steps
        require(
            warmup + cooldown <= config.steps,
            f"train.cooldown={cooldown} and the warm-up of {warmup} updates do not fit into "
            f"train.steps={config.steps}: use a shorter cooldown, or train for longer.",
        )
        down = lambda t: peak * (1 - jnp.sqrt(jnp.clip(t / cooldown, 0, 1)))  # noqa: E731
        parts, starts = [*parts, down], [*starts, config.steps - cooldown]
    return optax.join_schedules(parts, starts)


def axis_names(params: nnx.State) -> Params:
    """The logical axes of each parameter, a nested dict of `AxisNames`.

    Args:
        params: with their metadata, see `state.structure`.
    """

    def of(variable: nnx.Variable) -> AxisNames:
        known = variable.get_metadata()
        return AxisNames(tuple(known["out_sharding"]), known.get("depthwise", False))

    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    return nnx.to_pure_dict(jax.tree.map(of, params, is_leaf=is_variable))


def decay_mask(params: nnx.State) -> Params:
    """Which parameters decay: matrices, and not the scales and biases, which are vectors.

    What counts is a parameter's shape in one layer and one head; see `AxisNames.decays`.

    Args:
        params: with their metadata, see `state.structure`.

    Returns:
        A nested dict of bools.
    """
    return jax.tree.map(lambda axes: axes.decays, axis_names(params))


def optimizer_of(config: TrainConfig, params: nnx.State) -> optax.GradientTransformation:
    """The optimiser of a model's parameters, see `make_optimizer`.

    Args:
        config: the recipe.
        params: with their metadata, see `state.structure`.
    """
    return make_optimizer(config, decay_mask(params), axis_names(params))


def make_optimizer(
    config: TrainConfig, decayed: Params, axes: Params = None
) -> optax.GradientTransformation:
    """`train.optimizer` on the mean gradient over the targets of `accumulate` batches.

    Batches hold different numbers of targets, so a mean of their mean gradients is not that of the
    batches taken together. `update` therefore takes a `Gradient`, the sum and its count; both
    are accumulated by `optax.MultiSteps`, and their quotient is the large batch's gradient. It is
    clipped and used when the last of the batches has come; until then updates are zero.

    Args:
        config: the recipe.
        decayed: which parameters weight decay applies to, see `decay_mask`.
        axes: the parameters' axes, see `axis_names`; optimisers that treat each parameter by its
            entries alone, as adamw and lion, need none.
    """
    inner = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.chain(  # for adamw what `optax.adamw` is, state and all
            config.optimizer.direction(Setting(config.beta1, config.beta2, axes)),
            optax.add_decayed_weights(config.weight_decay, decayed),
            optax.scale_by_learning_rate(schedule(config)),
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
