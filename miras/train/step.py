"""The compiled steps of a run: an update, an evaluation, and a measurement of the memories.

They are pure functions of a state and batches; `trainer` calls them. A batch is one of
`miras.data.make_loader`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from miras.array_typing import Array
from miras.models import Health
from miras.train.optimizer import Gradient, gradient_norm
from miras.train.state import Params, TrainState

Batch = Mapping[str, Any]  # numpy or jax arrays


class Totals(NamedTuple):
    """Sums over targets, which can be added over batches.

    Attributes:
        nats: negative log likelihood.
        targets: number of targets.
        bytes: bytes of text that the targets represent.
    """

    nats: Array | float
    targets: Array | float
    bytes: Array | float


class StepMetrics(NamedTuple):
    """The metrics of one update.

    Attributes:
        totals: over the update's batches.
        gradient_norm: of the mean gradient, before clipping.
        finite: whether losses, gradients and updates are, of this step and all previous ones.
        tokens: number of tokens in the batches, int32.
    """

    totals: Totals
    gradient_norm: Array
    finite: Array
    tokens: Array


def nats_per_target(totals: Totals) -> float:
    """The loss in nats per target."""
    return float(totals.nats) / max(float(totals.targets), 1.0)


def bits_per_byte(totals: Totals) -> float:
    """sum(nats) / ln 2 / sum(bytes), which is comparable across tokenizers."""
    return float(totals.nats) / math.log(2) / max(float(totals.bytes), 1.0)


def total_loss(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> tuple[Array, Totals]:
    """The summed negative log likelihood of a batch's targets in nats, and the totals."""
    model = nnx.merge(graphdef, params)
    logits, _ = model(batch["inputs"], segment_ids=batch["segment_ids"], segments_at_chunks=True)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
    nats = jnp.sum(losses, where=batch["mask"])
    targets = jnp.sum(batch["mask"], dtype=jnp.float32)
    return nats, Totals(nats, targets, jnp.sum(batch["target_bytes"]))


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    shardings: TrainState | None = None,
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, StepMetrics]]:
    """A compiled `step(state, batches, alive)` that returns the next state and its metrics.

    The leading axis of `batches` is that of the batches whose gradients make one update. The
    state's buffers are donated. The state is returned unchanged if anything is not finite, or if
    `alive` is false: passing the `finite` of each step to the next one stops a run at its first
    non-finite step, without waiting for a step before the next is dispatched.

    Args:
        graphdef: the model's structure.
        optimizer: see `optimizer.optimizer_of`.
        shardings: of the state, see `sharding.state_shardings`; those of the given state if None.
    """
    loss = jax.value_and_grad(functools.partial(total_loss, graphdef), has_aux=True)

    def accumulate(carry, batch: Batch):
        params, opt_state, finite = carry
        (nats, totals), gradient = loss(params, batch)
        updates, opt_state = optimizer.update(Gradient(gradient, totals.targets), opt_state, params)
        norms = jnp.stack([nats, optax.tree.norm(gradient), optax.tree.norm(updates)])
        finite &= jnp.all(jnp.isfinite(norms))
        return (optax.apply_updates(params, updates), opt_state, finite), totals

    def step(state: TrainState, batches: Batch, alive: Array):
        start = (state.params, state.opt_state, alive)
        (params, opt_state, finite), totals = jax.lax.scan(accumulate, start, batches)
        after = TrainState(params, opt_state, state.step + 1, state.key)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        totals = jax.tree.map(lambda x: jnp.sum(x, axis=0), totals)
        tokens = jnp.count_nonzero(batches["segment_ids"])
        return kept, StepMetrics(totals, gradient_norm(opt_state), finite, tokens)

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def make_eval_step(graphdef: nnx.GraphDef) -> Callable[[Params, Batch], Totals]:
    """A compiled `evaluate(params, batch)`."""
    return jax.jit(lambda params, batch: total_loss(graphdef, params, batch)[1])


def make_health_step(graphdef: nnx.GraphDef) -> Callable[[Params, Batch], Health]:
    """A compiled `health(params, batch)`: measurements of the memories, [layers] each."""

    def health(params: Params, batch: Batch) -> Health:
        model = nnx.merge(graphdef, params)
        ids = batch["segment_ids"]
        return model.observe(batch["inputs"], segment_ids=ids, segments_at_chunks=True)[2]

    return jax.jit(health)
