"""Scoring: the log-probabilities of given tokens, in rows of any length, in one call."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from miras.array_typing import Array
from miras.attention.cache import reserve
from miras.config import require
from miras.errors import ConfigError
from miras.models.language_model import LanguageModel, as_rows, check_state, check_tokens
from miras.models.state import ModelState, check_fits


class Scored(NamedTuple):
    """The result of `score`.

    Attributes:
        logprobs: log p(token | what comes before it), [B, T] float32, in nats; 0 after a row's
            length, and for a row's first token where no logits were given for it.
        logits: of the token after each row's last [B, vocab] float32.
        state: after each row's last token.
    """

    logprobs: Array
    logits: Array
    state: ModelState


def score(
    model: LanguageModel,
    tokens: Array,
    lengths: Array | None = None,
    state: ModelState | None = None,
    logits: Array | None = None,
) -> Scored:
    """Log-probabilities of given tokens, in one program for all lengths.

    A row's log-probabilities, the logits after its last token and its state are those of the row
    read alone. `score`, `prefill` and `decode_step` go on from the state.

    Args:
        model: the language model.
        tokens: [B, T] int, T >= 1; after a row's length they may have any id.
        lengths: [B] int in [0, T], how many first tokens of each row are its own; T if not given.
            A row of length 0 keeps its state and its logits.
        state: where to go on from; a new one if not given.
        logits: [B, vocab] of each row's first token, as the call before returned them. Where a row
            has none, or zeros, its first token is taken as given: its log-probability is 0. A row
            without tokens that was given no logits returns zeros, so that its first token in a
            later call is taken as given there.

    Raises:
        ConfigError: for tokens, lengths, logits or a state that do not fit.
    """
    tokens = as_rows(tokens)
    batch, length = tokens.shape
    lengths = check_lengths(lengths, batch, length)
    tokens = check_tokens(tokens, model.config.vocab, first_ones(lengths, length))
    if logits is None:
        logits = jnp.zeros((batch, model.config.vocab), jnp.float32)
    logits = jnp.asarray(logits)
    require(
        logits.shape == (batch, model.config.vocab) and jnp.issubdtype(logits.dtype, jnp.floating),
        f"logits have shape {logits.shape} and dtype {logits.dtype}: they must be floats [B, vocab]"
        f" = {(batch, model.config.vocab)}, as prefill, decode_step and score return them.",
    )
    state = ready(model, model.init_state(batch) if state is None else state, tokens.shape)
    graph, params = nnx.split(model)
    first = logits.astype(jnp.float32)
    return Scored(*_score(graph, params, tokens, lengths, first, state))


@functools.partial(jax.jit, static_argnums=0)
def _score(graph, params, tokens, lengths, first, state):
    mask = first_ones(lengths, tokens.shape[1])
    logits, state = nnx.merge(graph, params)(tokens, mask=mask, state=state)
    given = jnp.any(first != 0, axis=-1)
    start = jnp.where(given, _log_probability(first, tokens[:, 0]), 0)
    rest = _log_probability(logits[:, :-1], tokens[:, 1:])
    logprobs = jnp.concatenate([start[:, None], rest], axis=1)
    return jnp.where(mask, logprobs, 0), _last(logits, lengths, first), state


def _log_probability(logits: Array, tokens: Array) -> Array:
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _last(logits: Array, lengths: Array, first: Array) -> Array:
    """The logits of each row's last token, or its first ones where it has none."""
    at = jnp.maximum(lengths - 1, 0)[:, None, None]
    last = jnp.take_along_axis(logits, at, axis=1)[:, 0]
    return jnp.where(lengths[:, None] > 0, last, first)


@functools.partial(jax.jit, static_argnums=0)
def read_rows(graph, params, tokens: Array, lengths: Array, state: ModelState):
    """The logits after each row's last token, and the state; every row has one."""
    mask = first_ones(lengths, tokens.shape[1])
    logits, state = nnx.merge(graph, params)(tokens, mask=mask, state=state)
    return _last(logits, lengths, logits[:, 0]), state


def first_ones(lengths: Array, length: int) -> Array:
    """The mask [B, T] of rows whose own tokens are their first ones."""
    return jnp.arange(length)[None, :] < lengths[:, None]


def check_lengths(lengths: Array | None, batch: int, length: int) -> Array:
    """Lengths [B] int32, T where not given; `ConfigError` for others than in [0, T]."""
    if lengths is None:
        return jnp.full(batch, length, jnp.int32)
    given = lengths if isinstance(lengths, Tracer) else np.asarray(lengths)
    whole = jnp.issubdtype(given.dtype, jnp.integer) and given.shape == (batch,)
    legal = isinstance(given, Tracer) or (whole and 0 <= given.min() <= given.max() <= length)
    require(
        bool(whole and legal),
        f"lengths={lengths} must be whole numbers in [0, {length}], one for each of {batch} rows.",
    )
    return jnp.asarray(given, jnp.int32)


def ready(model: LanguageModel, state: ModelState, shape: tuple[int, ...]) -> ModelState:
    """The state with room for tokens of this shape; `ConfigError` for one that does not fit."""
    check_state(model, state)
    try:
        state = reserve(state, shape[1])
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            f"the state of {shape[1]:,} more tokens does not fit in memory: add fewer, since "
            "attention keeps every token."
        ) from error
    check_fits(state, shape)
    return state
