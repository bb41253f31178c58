"""Locates the first NaN or infinity of a step that was not finite."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.models import Health, LanguageModelConfig
from miras.train.state import Params
from miras.train.step import Batch, total_loss


class NonFiniteError(RuntimeError):
    """A loss, gradient or update was NaN or infinite; the message names the step and the layer."""


def locate(
    graphdef: nnx.GraphDef,
    health: Callable[[Params, Batch], Health],
    params: Params,
    batch: Batch,
    config: LanguageModelConfig,
) -> str | None:
    """The first place of a batch's computation that is not finite; None if all are finite.

    The layers are searched in the order of the forward pass, then the output head, then the
    gradients.

    Args:
        graphdef: the model's structure.
        health: see `step.make_health_step`.
        params: the parameters before the step that failed.
        batch: one of the step's batches.
        config: of the model.
    """
    measures = jax.tree_util.tree_leaves_with_path(jax.device_get(health(params, batch)))
    finite = [(np.isfinite(leaf) | _absent(path, config), path) for path, leaf in measures]
    bad = [(int(np.argmin(good)), path) for good, path in finite if not good.all()]
    if bad:
        layer = min(layer for layer, _ in bad)
        names = [_name(path) for at, path in bad if at == layer]
        return f"layer {config.memory_layers[layer]} ({', '.join(names)})"
    gradient = jax.jit(
        jax.value_and_grad(lambda params: total_loss(graphdef, params, batch), has_aux=True)
    )
    (nats, _), gradients = gradient(params)
    if not jnp.isfinite(nats):
        return "the output head (all layers are finite)"
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        if not np.isfinite(leaf).all():
            return f"the gradient of {_name(path)} (the forward pass is finite)"
    return None


def _absent(path, config: LanguageModelConfig) -> np.ndarray:
    """Whether each memory layer lacks the gate of a measure; False for other measures."""
    *_, before, last = ["", *map(str, _name(path).split("."))]
    lacks = [before == "gates" and last not in gates for gates in config.memory_gates]
    return np.asarray(lacks)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
