"""Locates the first NaN or infinity of a step that was not finite."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.models import Health, LanguageModelConfig
from miras.models.objective import Objective
from miras.train.language_modelling import TEXT
from miras.train.state import Params
from miras.train.step import Batch, total_loss


class NonFiniteError(RuntimeError):
    """A loss, gradient or update was NaN or infinite; the message names the step and the layer."""


class Place(NamedTuple):
    """Where the first value that is not finite is.

    Attributes:
        text: the place in words.
        memory_of: index of the layer in whose memory it arose, from finite inputs; None elsewhere.
        in_gradient: whether the forward pass is finite and its gradient is not.
    """

    text: str
    memory_of: int | None = None
    in_gradient: bool = False


_OF_MEMORY = {"inner_loss", "memory_norm", "update_ratio"}  # measures of `Health`


def locate(
    graphdef: nnx.GraphDef,
    health: Callable[[Params, Batch], Health],
    params: Params,
    batch: Batch,
    config: LanguageModelConfig,
    objective: Objective = TEXT,
) -> Place | None:
    """The first place of a batch's computation that is not finite; None if all are finite.

    The layers are searched in the order of the forward pass, then the output head, then the
    gradients.

    Args:
        graphdef: the model's structure.
        health: see `step.make_health_step`.
        params: the parameters before the step that failed.
        batch: one of the step's batches.
        config: of the model.
        objective: of the run.
    """
    measures = jax.tree_util.tree_leaves_with_path(jax.device_get(health(params, batch)))
    finite = [(np.isfinite(leaf) | _absent(path, config), path) for path, leaf in measures]
    bad = [(int(np.argmin(good)), path) for good, path in finite if not good.all()]
    if bad:
        layer = min(layer for layer, _ in bad)
        names = [_name(path) for at, path in bad if at == layer]
        # Gates are projected from the layer's input: where they are finite, so is the input.
        gates = any(name.startswith("gates") for name in names)
        from_memory = not gates and bool(_OF_MEMORY.intersection(names))
        where = "the memory of " if from_memory else ""
        index = config.memory_layers[layer]
        text = f"{where}layer {index} ({', '.join(names)})"
        return Place(text, index if from_memory else None)
    gradient = jax.jit(
        jax.value_and_grad(
            lambda params: total_loss(graphdef, params, batch, objective=objective), has_aux=True
        )
    )
    (nats, _), gradients = gradient(params)
    if not jnp.isfinite(nats):
        return Place("the output head (all layers are finite)")
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        if not np.isfinite(leaf).all():
            return Place(
                f"the gradient of {_name(path)} (the forward pass is finite)", in_gradient=True
            )
    return None


def _absent(path, config: LanguageModelConfig) -> np.ndarray:
    """Whether each memory layer lacks the gate of a measure; False for other measures."""
    *_, before, last = ["", *map(str, _name(path).split("."))]
    lacks = [before == "gates" and last not in gates for gates in config.memory_gates]
    return np.asarray(lacks)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def advice(model: LanguageModelConfig, place: Place, step: int) -> str:
    """What to set so that a step is finite.

    The outer rate has no part in what a memory computes from finite inputs, nor in the gradient of
    the first step.
    """
    outer = "try a lower train.learning_rate or train.clip, in another folder"
    layer = place.memory_of
    if layer is None and place.in_gradient and step == 1:
        layer = model.memory_layers[0]
    if layer is None:
        return f"{outer}."
    rate = lower_inner_rate(model, layer)
    if rate is None:
        return f"{outer}."
    return (
        f"the inner rate of layer {layer} is too high: set {rate}, or strength=0.05, at which "
        "`miras train` finds both, in another folder."
    )


def lower_inner_rate(model: LanguageModelConfig, layer: int) -> str | None:
    """What to set so that the memory of a layer is written more weakly; None if nothing writes.

    Args:
        model: the model.
        layer: its index, in [0, layers).
    """
    block = model.block(model.letters[layer % len(model.letters)])
    written = [rule for rule in block.mixer.rules(block) if rule.rate is not None]
    if not written:
        return None
    algorithm = written[0].algorithm
    return f"algorithm.lr below {algorithm.lr:g} and algorithm.max_lr below {algorithm.max_lr:g}"
