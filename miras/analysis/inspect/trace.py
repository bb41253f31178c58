"""Trace: reads a text token by token with a model, and measures its memories at each token.

`measures` defines the measures of one memory at one token; `descriptions` explains them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.analysis.inspect.measures import MemoryAtToken, Pairs, error, measures
from miras.array_typing import Array, Weights
from miras.backends.base import ScanInputs
from miras.config import require
from miras.engine.state import State, split_fixed
from miras.engine.trajectory import primal
from miras.layers.fast_weights import FastWeights, MemoryCall
from miras.models import LanguageModel
from miras.models.config import LanguageModelConfig
from miras.rule.rule import Rule
from miras.sequence.scan import every_gate
from miras.train.state import structure


class Trace(NamedTuple):
    """The measurements of a text of T tokens, with L memory layers and H heads.

    Attributes:
        tokens: ids [T].
        loss: -log2 of each token's probability given the tokens before it, [T]; NaN for the first.
        layers: indices of the layers with a memory, [L].
        values: [T, L, H] by measure: surprise, error, kept, norm, and the rule's gates in natural
            units (lr, decay, momentum, threshold, ...), as the update uses them, averaged over
            channels. NaN for undefined values.
    """

    tokens: np.ndarray
    loss: np.ndarray
    layers: tuple[int, ...]
    values: dict[str, np.ndarray]


def check_memories(config: LanguageModelConfig, name: str) -> None:
    """Raise `ConfigError` for a model without a memory that has weights."""
    memory = config.rule.memory
    require(
        "M" in config.letters and not memory.keeps_tokens,
        f"{name} has no memory with weights, since its layers are attention "
        f"(pattern {config.pattern!r}, memory {memory.kind!r}): give a run with a memory that has "
        "weights, such as yaad.",
    )


def trace(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    progress: Callable[[int], None] = lambda n: None,
) -> Trace:
    """Read tokens and measure every memory at each of them, in float32.

    Args:
        model: with a memory in some layers.
        tokens: ids [T], T >= 1, the first of them the document start.
        progress: called with the number of tokens read.

    Raises:
        ConfigError: for a model without memories.
    """
    check_memories(model.config, "this model")
    config = dataclasses.replace(model.config, dtype="float32", remat=False)
    params, graph = nnx.state(model, nnx.Param), structure(config)[0]
    state = nnx.merge(graph, params).init_state(1)
    ids = np.asarray(tokens)
    found, memory = [], None
    for t, (token, following) in enumerate(zip(ids, np.roll(ids, -1)), 1):
        state, memory, of_token = _read(graph, params, state, token, following)
        found.append(of_token)
        progress(t)
    assert memory is not None
    bits, values, pairs = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(found))
    values["kept"] = np.asarray(_kept(config.rule, memory.held, memory.fixed, pairs))
    loss = np.concatenate([[math.nan], bits[:-1]])  # the last token has no next one
    return Trace(ids, loss, config.memory_layers, values)


@functools.partial(jax.jit, static_argnums=0)
def _read(graph: nnx.GraphDef, params: nnx.State, state, token: Array, following: Array):
    """Read one token: the state after it, the memories at it, and its measurements.

    These are the bits of the following token, measures [L, H] and associations [L, H, R, D].
    """
    model = nnx.merge(graph, params)
    logits, state, seen = model.measure_memories(token[None, None], state, _arguments)
    seen = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), seen)
    of_heads = jax.vmap(functools.partial(measures, model.config.rule))
    values, pairs = jax.vmap(of_heads)(*seen)
    bits = -jax.nn.log_softmax(logits[0, 0])[following] / math.log(2)
    return state, seen[0], (bits, values, pairs)


def _arguments(fast: FastWeights, call: MemoryCall):
    """The arguments of `measures` after the rule, for all heads, leaves [H, ...]."""
    before, after, rule = call.before, call.after, fast.memory.rule
    if not (isinstance(before, State) and isinstance(after, State)):
        return None  # attention
    W0, (q, k, v, k_write) = fast.initial_weights(), call.streams
    gates = every_gate(rule, ScanInputs(W0, q, k, v, call.gates, k_write))
    rows = _gradients_at(fast, before), _held(rule, after)
    at, held = jax.tree.map(lambda x: x[0], rows)
    token = jax.tree.map(lambda x: x[0, 0], (k, v, k_write, gates))
    return MemoryAtToken(at, held, split_fixed(rule, W0)[1]), *token


def _gradients_at(fast: FastWeights, before: State) -> Weights:
    """The primal weights at which the next token's gradient is taken, leaves [B, H, ...].

    At the start of a chunk, and for online rules, these are the weights before the token; otherwise
    the chunk's snapshot, or with `refine` the weights that the last sweep implies.
    """
    rule, memory = fast.memory.rule, fast.memory
    now = _primal(rule, before.A)
    if memory.exact or rule.algorithm.online:
        return now
    inside = _primal(rule, before.sweeps[-1].A) if memory.refine else before.R
    chunk_start = before.position == 0
    pick = lambda a, b: jnp.where(chunk_start.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
    return jax.tree.map(pick, now, inside)


def _held(rule: Rule, state: State) -> Weights:
    """The primal weights that queries read, leaves [B, H, ...]."""
    if rule.reads_linearly:
        assert state.L is not None
        return state.L
    return _primal(rule, state.A)


def _primal(rule: Rule, A: Weights) -> Weights:
    """The primal weights of dual states, leaves [B, H, ...]."""
    return jax.vmap(jax.vmap(functools.partial(primal, rule)))(A)


@functools.partial(jax.jit, static_argnums=0)
def _kept(rule: Rule, held: Weights, fixed: Weights, pairs: Pairs) -> Array:
    """`error` of every token at one memory, [T, L, H]."""
    of_heads = jax.vmap(functools.partial(error, rule))
    of_layers = jax.vmap(of_heads)
    return jax.vmap(of_layers, in_axes=(None, None, 0))(held, fixed, pairs)
