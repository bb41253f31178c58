"""The compiled steps of a run: an update, an evaluation, and a measurement of the memories.

They are pure functions of a state and batches; `trainer` calls them. A batch is one of
`miras.data.make_loader`.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.array_typing import Array
from miras.models import Health
from miras.models.objective import PLAIN_LOSS, Batch, LossOptions, Objective, Totals
from miras.train.language_modelling import TEXT
from miras.train.optimizer import Gradient, gradient_norm
from miras.train.spikes import NormWindow, window_of, with_window
from miras.train.state import Params, TrainState


class StepMetrics(NamedTuple):
    """The metrics of one update.

    Attributes:
        totals: over the update's batches.
        gradient_norm: of the mean gradient, before clipping; with the z-loss, if there is one.
        finite: whether losses, gradients and updates are, of this step and all previous ones.
        tokens: number of tokens in the batches, int32.
        window: of gradient norms, by which the update was skipped or not; None without
            `train.skip_spikes`.
    """

    totals: Totals
    gradient_norm: Array
    finite: Array
    tokens: Array
    window: NormWindow | None = None


def nats_per_target(totals: Totals) -> float:
    """The loss in nats per target."""
    return float(totals.nats) / max(float(totals.targets), 1.0)


def bits_per_byte(totals: Totals) -> float:
    """sum(nats) / ln 2 / sum(bytes), which is comparable across tokenizers."""
    return float(totals.nats) / math.log(2) / max(float(totals.bytes), 1.0)


def total_loss(
    graphdef: nnx.GraphDef,
    params: Params,
    batch: Batch,
    options: LossOptions = PLAIN_LOSS,
    objective: Objective = TEXT,
) -> tuple[Array, Totals]:
    """The objective summed over a batch's targets, and the totals; see `Objective.loss`."""
    return objective.loss(nnx.merge(graphdef, params), batch, options)


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    shardings: TrainState | None = None,
    options: LossOptions = PLAIN_LOSS,
    objective: Objective = TEXT,
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, StepMetrics]]:
    """A jitted `step(state, batches, alive)` that returns the next state and its metrics.

    The leading axis of `batches` is that of the batches whose gradients make one update. The
    state's buffers are donated. The state is returned unchanged if anything is not finite, or if
    `alive` is false: passing the `finite` of each step to the next one stops a run at its first
    non-finite step, without waiting for a step before the next is dispatched. Of an update that is
    a spike, only the number of the step and the window change, see `spikes`.

    `step.lower(state, batches, alive).compile()` compiles it ahead, from arrays or their
    `jax.ShapeDtypeStruct` with shardings.

    Args:
        graphdef: the model's structure.
        optimizer: see `optimizer.optimizer_of`.
        shardings: of the state, see `sharding.state_shardings`; those of the given state if None.
        options: of the loss.
        objective: of the run.
    """
    loss = jax.value_and_grad(
        functools.partial(total_loss, graphdef, options=options, objective=objective), has_aux=True
    )

    def of(params: Params, batch: Batch) -> tuple[Params, Totals]:
        (_, totals), gradient = loss(params, batch)
        if shardings is not None:
            gradient = jax.lax.with_sharding_constraint(gradient, shardings.params)
        return gradient, totals

    def step(state: TrainState, batches: Batch, alive: Array):
        total, totals = _accumulated(functools.partial(of, state.params), batches)
        tokens = objective.tokens(batches)
        return _updated(optimizer, state, total, StepMetrics(totals, alive, alive, tokens))

    # Every device has the metrics, as it has the step's number: `finite` is the next `alive`.
    whole = None if shardings is None else shardings.step
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, whole))


def _accumulated(
    gradient: Callable[[Batch], tuple[Params, Totals]], batches: Batch
) -> tuple[Params, Totals]:
    """The gradient of the summed objective of all batches, float32, and their totals."""

    def of(batch: Batch) -> tuple[Params, Totals]:
        found, totals = gradient(batch)
        return jax.tree.map(
            lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), found
        ), totals

    def add(sums: tuple[Params, Totals], batch: Batch):
        return jax.tree.map(jnp.add, sums, of(batch)), None

    first = jax.tree.map(lambda x: x[0], dict(batches))
    if jax.tree.leaves(dict(batches))[0].shape[0] == 1:
        return of(first)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of, first))
    return jax.lax.scan(add, start, dict(batches))[0]


def _updated(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    total: Params,
    metrics: StepMetrics,
) -> tuple[TrainState, StepMetrics]:
    """The state after an update; unchanged if it is not finite, in the buffers of the old one.

    Whether the state changes is known only after all updates are. So that no second copy of the
    optimiser's state waits for that, the optimiser runs twice: first for the updates alone, then
    under the condition for its new state alone. The compiler removes what the first run does for
    the state and what the second does for the updates, and does not merge code across a condition.

    The alternatives are no better on TPUs. A step of yaad (2 layers of width 768, v5e:4x4) has its
    peak at 0.218 GiB a chip with the condition, at 0.250 where `jnp.where` selects each array, and
    at 0.218 where the second run is told apart by `jax.lax.optimization_barrier` instead, which on
    CPUs takes twice the temporaries of the condition.
    """
    totals = metrics.totals
    gradient = Gradient(total, jnp.asarray(totals.targets))
    updates, after = optimizer.update(gradient, state.opt_state, state.params)
    norm = gradient_norm(after)
    norms = jnp.stack([totals.nats, norm, optax.tree.norm(updates)])
    finite = metrics.finite & jnp.all(jnp.isfinite(norms))
    window = window_of(after)
    applied = finite if window is None else finite & ~window.spike

    def apply(gradient: Gradient, updates: Params, state: TrainState) -> TrainState:
        _, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.key)

    def keep(_: Gradient, __: Params, state: TrainState) -> TrainState:
        if window is None:
            return state
        opt_state = with_window(state.opt_state, window, finite)
        return state._replace(opt_state=opt_state, step=state.step + finite)

    after = jax.lax.cond(applied, apply, keep, gradient, updates, state)
    return after, metrics._replace(gradient_norm=norm, finite=finite, window=window)


def make_eval_step(graphdef: nnx.GraphDef) -> Callable[[Params, Batch], Totals]:
    """A compiled `evaluate(params, batch)`."""
    return jax.jit(lambda params, batch: total_loss(graphdef, params, batch)[1])


def make_health_step(
    graphdef: nnx.GraphDef, objective: Objective = TEXT
) -> Callable[[Params, Batch], Health]:
    """A compiled `health(params, batch)`: measurements of the memories, [layers] each."""
    return jax.jit(lambda params, batch: objective.observe(nnx.merge(graphdef, params), batch))
