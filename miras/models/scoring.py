"""Scoring: log-probabilities of given tokens, in rows of any length, in one call."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from miras.array_typing import Array, Logits, RowIntegers, TokenIds, typed
from miras.attention.cache import reserve
from miras.config import require
from miras.errors import ConfigError
from miras.models.language_model import LanguageModel, as_rows, check_state, check_tokens
from miras.models.state import ModelState, check_fits


class Scored(NamedTuple):
    """The result of `score`.

    Attributes:
        logprobs: log p(token | tokens before it), [B, T] float32, in nats; 0 after a row's length,
            and for a row's first token if no logits were given for it.
        logits: of the token after each row's last token, [B, vocab] float32.
        state: after each row's last token.
        greedy: whether a token is the most likely one, which greedy decoding takes, [B, T] bool;
            True where `logprobs` is 0 for want of a token or of logits.
    """

    logprobs: Array
    logits: Array
    state: ModelState
    greedy: Array


@typed
def score(
    model: LanguageModel,
    tokens: TokenIds,
    lengths: RowIntegers | None = None,
    state: ModelState | None = None,
    logits: Logits | None = None,
) -> Scored:
    """Log-probabilities of given tokens, with one compiled program for all lengths.

    A row's log-probabilities, logits and state are those of the row read alone. `score`, `prefill`
    and `decode_step` can continue from the state.

    Args:
        model: the language model.
        tokens: [B, T] int, T >= 1; after a row's length they may have any id.
        lengths: [B] int in [0, T], the number of tokens of each row; T if not given. A row of
            length 0 keeps its state and its logits.
        state: to continue from; the initial one if not given.
        logits: [B, vocab] of each row's first token, from the previous call. If they are missing,
            or zeros in a row, the log-probability of the row's first token is 0. A row without
            tokens and logits returns zeros, so that a later call can treat its first token so.

    Raises:
        ConfigError: for tokens, lengths, logits or a state that do not fit the model.
    """
    tokens = as_rows(tokens)
    batch, length = tokens.shape
    lengths = check_lengths(lengths, batch, length)
    tokens = check_tokens(tokens, model.config.vocab, mask_of_lengths(lengths, length))
    if logits is None:
        logits = jnp.zeros((batch, model.config.vocab), jnp.float32)
    logits = jnp.asarray(logits)
    require(
        logits.shape == (batch, model.config.vocab) and jnp.issubdtype(logits.dtype, jnp.floating),
        f"logits have shape {logits.shape} and dtype {logits.dtype}: they must be floats [B, vocab]"
        f" = {(batch, model.config.vocab)}, as prefill, decode_step and score return them.",
    )
    state = reserve_room(model, model.init_state(batch) if state is None else state, tokens.shape)
    graph, params = nnx.split(model)
    first = logits.astype(jnp.float32)
    return Scored(*_score(graph, params, tokens, lengths, first, state))


@functools.partial(jax.jit, static_argnums=0)
def _score(graph, params, tokens, lengths, first, state):
    mask = mask_of_lengths(lengths, tokens.shape[1])
    logits, state = nnx.merge(graph, params)(tokens, mask=mask, state=state)
    given = jnp.any(first != 0, axis=-1)
    start, taken = _log_probability(first, tokens[:, 0])
    rest, greedy = _log_probability(logits[:, :-1], tokens[:, 1:])
    logprobs = jnp.concatenate([jnp.where(given, start, 0)[:, None], rest], axis=1)
    greedy = jnp.concatenate([(taken | ~given)[:, None], greedy], axis=1)
    return jnp.where(mask, logprobs, 0), _last(logits, lengths, first), state, greedy | ~mask


def _log_probability(logits: Array, tokens: Array) -> tuple[Array, Array]:
    """The log-probability of each token, and whether it is the most likely one."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    taken = jnp.argmax(logits, axis=-1) == tokens
    return chosen - jax.nn.logsumexp(logits, axis=-1), taken


def _last(logits: Array, lengths: Array, first: Array) -> Array:
    """The logits after each row's last token; `first` for a row without tokens."""
    at = jnp.maximum(lengths - 1, 0)[:, None, None]
    last = jnp.take_along_axis(logits, at, axis=1)[:, 0]
    return jnp.where(lengths[:, None] > 0, last, first)


@functools.partial(jax.jit, static_argnums=0)
def read_rows(graph, params, tokens: Array, lengths: Array, state: ModelState):
    """The logits after each row's last token, and the state; every row needs a token."""
    mask = mask_of_lengths(lengths, tokens.shape[1])
    logits, state = nnx.merge(graph, params)(tokens, mask=mask, state=state)
    return _last(logits, lengths, logits[:, 0]), state


def mask_of_lengths(lengths: Array, length: int) -> Array:
    """The mask [B, T] of rows that are padded at the end."""
    return jnp.arange(length)[None, :] < lengths[:, None]


def check_lengths(lengths: Array | None, batch: int, length: int) -> Array:
    """Lengths as [B] int32, T if not given; `ConfigError` for a length outside [0, T]."""
    if lengths is None:
        return jnp.full(batch, length, jnp.int32)
    given = lengths if isinstance(lengths, Tracer) else np.asarray(lengths)
    whole = jnp.issubdtype(given.dtype, jnp.integer) and given.shape == (batch,)
    legal = isinstance(given, Tracer) or (whole and 0 <= given.min() <= given.max() <= length)
    require(
        bool(whole and legal),
        f"lengths={lengths} must be {batch} whole numbers in [0, {length}], one per row.",
    )
    return jnp.asarray(given, jnp.int32)


def reserve_room(model: LanguageModel, state: ModelState, shape: tuple[int, ...]) -> ModelState:
    """The state with room for tokens [B, T] of this shape; `ConfigError` if it does not fit."""
    check_state(model, state)
    try:
        state = reserve(state, shape[1])
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            f"the state of {shape[1]:,} more tokens does not fit in memory, since attention keeps "
            "every token: read or generate fewer."
        ) from error
    check_fits(state, shape)
    return state
