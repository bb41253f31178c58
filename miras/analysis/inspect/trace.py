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
    require(
        any(_has_weights(config, place) for place in config.memory_blocks),
        f"{name} has no memory with weights, since its layers are attention "
        f"(pattern {config.pattern!r}, memory {config.rule.memory.kind!r}): give a run with a "
        "memory that has weights, such as yaad.",
    )


def _has_weights(config: LanguageModelConfig, place: int) -> bool:
    """Whether the block at a place of the pattern has a memory that is not attention."""
    block = config.block(config.letters[place])
    return any(not rule.memory.keeps_tokens for rule in block.mixer.rules(block))


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
    found, memories = [], ()
    for t, (token, following) in enumerate(zip(ids, np.roll(ids, -1)), 1):
        state, memories, of_token = _read(graph, params, state, token, following)
        found.append(of_token)
        progress(t)
    bits, *blocks = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(found))
    values = []
    for memory, block in zip(memories, blocks):
        if block is not None:
            of_block, pairs = block
            kept = np.asarray(_kept(memory.rule, memory.now.held, memory.now.fixed, pairs))
            values.append({**of_block, "kept": kept})
    places = [n for n, block in zip(config.memory_blocks, blocks) if block is not None]
    layers = tuple(n for n in range(config.layers) if n % len(config.letters) in places)
    loss = np.concatenate([[math.nan], bits[:-1]])  # the last token has no next one
    return Trace(ids, loss, layers, _by_layer(values))


def _by_layer(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Values [T, groups, H] of the blocks of a pattern as [T, L, H], NaN where there are none."""
    heads = max(block["error"].shape[2] for block in blocks)
    names = dict.fromkeys(name for block in blocks for name in block)

    def of_block(block: dict[str, np.ndarray], name: str) -> np.ndarray:
        x = block.get(name, np.full_like(block["error"], math.nan))
        missing = [(0, 0), (0, 0), (0, heads - x.shape[2])]
        return np.pad(x, missing, constant_values=math.nan)

    stacked = {name: np.stack([of_block(b, name) for b in blocks], axis=2) for name in names}
    return {name: x.reshape(len(x), -1, heads) for name, x in stacked.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Memory:
    """The memories of a block and their rule, leaves [groups, H, ...]."""

    rule: Rule = dataclasses.field(metadata={"static": True})
    now: MemoryAtToken


@functools.partial(jax.jit, static_argnums=0)
def _read(graph: nnx.GraphDef, params: nnx.State, state, token: Array, following: Array):
    """Read one token: the state after it, the memories at it, and its measurements.

    These are the bits of the following token, and for each block measures [groups, H] and
    associations [groups, H, R, D], or None for attention.
    """
    model = nnx.merge(graph, params)
    logits, state, seen = model.measure_memories(token[None, None], state, _measured)
    memories = [None if block is None else block[0] for block in seen]
    values = [None if block is None else block[1:] for block in seen]
    bits = -jax.nn.log_softmax(logits[0, 0])[following] / math.log(2)
    return state, memories, (bits, *values)


def _measured(fast: FastWeights, call: MemoryCall):
    """The memories after a token, its measures and its associations, leaves [H, ...]."""
    before, after, rule = call.before, call.after, fast.memory.rule
    if not (isinstance(before, State) and isinstance(after, State)):
        return None  # attention
    W0, (q, k, v, k_write) = fast.initial_weights(), call.streams
    gates = every_gate(rule, ScanInputs(W0, q, k, v, call.gates, k_write))
    rows = _gradients_at(fast, before), _held(rule, after), before.carried
    at, held, carried = jax.tree.map(lambda x: x[0], rows)
    token = jax.tree.map(lambda x: x[0, 0], (k, v, k_write, gates))
    arguments = MemoryAtToken(at, held, split_fixed(rule, W0)[1], carried), *token
    arguments = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), arguments)
    values, pairs = jax.vmap(functools.partial(measures, rule))(*arguments)
    return _Memory(rule, arguments[0]), values, pairs


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
