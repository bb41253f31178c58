"""The outer optimiser, which trains the parameters of the model, one update per batch.

The algorithms that update a memory, once per token, are in `miras.optim`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.array_typing import Array
from miras.train.config import TrainConfig
from miras.train.optimizers import AxisNames, Setting
from miras.train.schedule import schedule
from miras.train.spans import Masked, by_span, spans_of
from miras.train.spikes import watched
from miras.train.state import Params


class Gradient(NamedTuple):
    """The gradient of an update's batches before it is averaged.

    Attributes:
        total: gradient of the sum of the targets' losses, as the parameters, float32.
        targets: number of targets in that sum, float32.
    """

    total: Params
    targets: Array


class MeanState(NamedTuple):
    """State of the transformation that averages the gradient.

    Attributes:
        gradient_norm: global norm of the last averaged gradient, before clipping.
        inner: the state of the subsequent transformations.
    """

    gradient_norm: Array
    inner: optax.OptState


def wide(params: Params) -> Params:
    """Parameters in float32 at least, in which updates are computed."""
    return jax.tree.map(lambda p: p.astype(jnp.promote_types(p.dtype, jnp.float32)), params)


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
    """Which parameters decay: matrices, not scales and biases.

    The shape of a parameter in one layer and one head decides; see `AxisNames.decays`.

    Args:
        params: with their metadata, see `state.structure`.

    Returns:
        A nested dict of bools.
    """
    return jax.tree.map(lambda axes: axes.decays, axis_names(params))


def optimizer_of(
    config: TrainConfig, params: nnx.State, batch_tokens: int = 1
) -> optax.GradientTransformation:
    """The optimiser of the parameters of a model, see `make_optimizer`.

    Args:
        config: of the training.
        params: with their metadata, see `state.structure`.
        batch_tokens: of a batch; they decide how often parameters with a `period` are updated.
    """
    spans = spans_of(params, batch_tokens * config.accumulate)
    return make_optimizer(config, decay_mask(params), axis_names(params), spans)


def make_optimizer(
    config: TrainConfig, decayed: Params, axes: Params = None, spans: Params = None
) -> optax.GradientTransformation:
    """`train.optimizer`, applied to the mean gradient over the targets of `accumulate` batches.

    Batches have different numbers of targets, so the mean of their mean gradients is not the mean
    gradient of all targets. `update` therefore takes a `Gradient`, the sum and the count over all
    batches of the update, and clips and applies their quotient.

    Args:
        config: of the training.
        decayed: which parameters weight decay applies to, see `decay_mask`.
        axes: of the parameters, see `axis_names`; elementwise optimisers such as adamw and lion
            do not use them.
        spans: updates of the model for each update of a parameter, see `spans.spans_of`. Its
            clipped gradients are averaged over them, and its update has the learning rate of the
            last.
    """
    moments = None if config.optimizer_dtype == "float32" else config.optimizer_dtype

    def direction(masked: Masked) -> tuple[optax.GradientTransformation, ...]:
        names = None if axes is None else masked(axes)
        setting = Setting(config.beta1, config.beta2, names, moments)
        decay = optax.add_decayed_weights(config.weight_decay, masked(decayed))
        return config.optimizer.direction(setting), decay

    rate = optax.scale_by_learning_rate(schedule(config))
    if spans is None or set(jax.tree.leaves(spans)) == {1}:
        steps = (*direction(lambda tree: tree), rate)  # adamw is `optax.adamw`, with its state
    else:
        steps = by_span(lambda masked: optax.chain(*direction(masked)), spans), rate
    inner = optax.chain(optax.clip_by_global_norm(config.clip), optax.chain(*steps))

    def init(params: Params) -> MeanState:
        return MeanState(jnp.zeros(()), inner.init(wide(params)))

    def update(gradient: Gradient, state: MeanState, params: Params = None):
        mean = jax.tree.map(lambda g: g / jnp.maximum(gradient.targets, 1), gradient.total)
        updates, after = inner.update(mean, state.inner, wide(params))
        return updates, MeanState(optax.tree.norm(mean), after)

    transform = optax.GradientTransformation(init, update)  # pyright: ignore
    return watched(transform, config.skip_spikes)


def gradient_norm(state: optax.OptState) -> Array:
    """Global norm of the last averaged gradient, before clipping."""
    return optax.tree.get(state, "gradient_norm")
