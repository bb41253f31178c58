"""Decoding: read a prompt, then generate one token at a time from a state of constant size."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.array_typing import (
    Array,
    Logits,
    Mask,
    RowIntegers,
    RowMask,
    TokenIds,
    typed,
)
from miras.config import Config, require
from miras.config.choices import shown
from miras.models import rows
from miras.models.language_model import LanguageModel, as_rows, check_tokens
from miras.models.scoring import mask_of_lengths, read_rows, reserve_room
from miras.models.state import ModelState, mixer_state


@functools.partial(jax.jit, static_argnums=0)
def _forward(graph, params, tokens: Array, state: ModelState | None):
    logits, state = nnx.merge(graph, params)(tokens, state=state)
    return logits[:, -1], state


@typed
def prefill(
    model: LanguageModel,
    tokens: TokenIds,
    state: ModelState | None = None,
    *,
    mask: Mask | None = None,
) -> tuple[Logits, ModelState]:
    """Read tokens in parallel; a text may be read in pieces of any size.

    Args:
        model: the language model.
        tokens: [B, T] int, T >= 1.
        state: to continue from; the initial one if not given.
        mask: [B, T] bool, False for padding, which may be before, between or after a row's tokens;
            each row needs at least one token (`score` takes rows without tokens). The result of a
            row is that of its tokens alone. One compiled program serves all masks.

    Returns:
        Logits of the token after each row's last token [B, vocab], and the state.

    Raises:
        ConfigError: for tokens, a mask or a state that do not fit the model.
    """
    tokens = as_rows(tokens)
    lengths = None
    if mask is not None:
        tokens, lengths = _own_first(tokens, mask)
    own = None if lengths is None else mask_of_lengths(lengths, tokens.shape[1])
    tokens = check_tokens(tokens, model.config.vocab, own)
    if state is not None:
        state = reserve_room(model, state, tokens.shape)
    if lengths is None:
        return _in_pieces(model, tokens, state)
    if state is None:
        state = reserve_room(model, model.init_state(len(tokens)), tokens.shape)
    graph, params = nnx.split(model)
    return read_rows(graph, params, tokens, lengths, state)


def _own_first(tokens: Array, mask: Array) -> tuple[Array, Array]:
    """Move each row's tokens before its padding; tokens [B, T] and lengths [B] int32."""
    known = np.asarray(mask)
    require(
        known.shape == tokens.shape and known.dtype == bool,
        f"mask has shape {known.shape} and dtype {known.dtype}: it must be bool {tokens.shape}.",
    )
    lengths = known.sum(axis=1, dtype=np.int32)
    require(
        bool(lengths.min() >= 1),
        f"mask has no token in row {int(lengths.argmin())}: prefill needs one per row; use "
        "miras.models.score for rows without tokens.",
    )
    order = np.argsort(~known, axis=1, kind="stable")
    return jnp.take_along_axis(jnp.asarray(tokens), order, axis=1), jnp.asarray(lengths)


def _in_pieces(
    model: LanguageModel, tokens: Array, state: ModelState | None
) -> tuple[Array, ModelState]:
    """Read in one call; or up to where mixers compute in parallel first, and then the rest."""
    graph, params = nnx.split(model)
    head = 0 if state is None else _until_parallel(model, state)
    if 0 < head < tokens.shape[1]:
        _, state = _forward(graph, params, tokens[:, :head], state)
        tokens = tokens[:, head:]
    return _forward(graph, params, tokens, state)


def _until_parallel(model: LanguageModel, state: ModelState) -> int:
    """Tokens to where all mixers compute in parallel, if all rows have the same number, else 0."""
    for letter, layer in zip(model.config.letters, state.layers):
        block = model.config.block(letter)
        left = block.mixer.until_parallel(block, mixer_state(layer))
        if left is not None:
            counts = np.unique(np.asarray(left))
            return int(counts[0]) if len(counts) == 1 else 0
    return 0


@typed
def decode_step(
    model: LanguageModel, token: RowIntegers, state: ModelState, *, active: RowMask | None = None
) -> tuple[Logits, ModelState]:
    """Read one token per row.

    The result equals the last position of a parallel forward pass over all tokens so far, up to
    rounding.

    Args:
        model: the language model.
        token: [B] int.
        state: of the tokens before it.
        active: [B] bool; rows with False keep their state, and their logits are undefined.

    Returns:
        Logits of the next token [B, vocab], and the state.

    Raises:
        ConfigError: for a token, a state or a mask that does not fit the model.
    """
    token = check_tokens(jnp.asarray(token)[:, None], model.config.vocab)
    before = reserve_room(model, state, token.shape)
    logits, after = _in_pieces(model, token, before)
    return logits, after if active is None else rows.where(active, after, before, "active")


@dataclasses.dataclass(frozen=True)
class Verified:
    """The result of `verify`.

    Attributes:
        logits: [B, k, vocab], of the token after each token of the draft.
        states: before the draft and after each of its k tokens, leaves [k + 1, ...].
    """

    logits: Array
    states: ModelState

    def after(self, tokens: int | Array) -> ModelState:
        """The state after the first `tokens` tokens of the draft: one number, or [B] of them."""
        most = self.logits.shape[1]
        count = np.asarray(tokens)
        whole = np.issubdtype(count.dtype, np.integer)
        legal = whole and count.shape in ((), (len(self.logits),))
        require(
            bool(legal and 0 <= count.min() <= count.max() <= most),
            f"tokens={tokens} must be a whole number in [0, {most}], or one per row.",
        )
        count = jnp.broadcast_to(jnp.asarray(count), len(self.logits))
        row = jnp.arange(len(count))
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf[count, :, row], 0, 1), self.states)


@functools.partial(jax.jit, static_argnums=0)
def _verify(graph, params, draft: Array, state: ModelState):
    def read(state, token):
        here = jax.tree.map(jnp.asarray, params)  # Flax requires variables of the scan's trace
        logits, after = nnx.merge(graph, here)(token[:, None], state=state)
        return after, (logits[:, 0], after)

    _, (logits, states) = jax.lax.scan(read, state, draft.T)
    whole = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)
    return jnp.swapaxes(logits, 0, 1), whole


@typed
def verify(model: LanguageModel, draft: TokenIds, state: ModelState) -> Verified:
    """Score a draft in one compiled call, and keep the state after each of its tokens.

    `Verified.after(n)` accepts the first n tokens without computing anything again: an update of a
    memory cannot be undone, so all k + 1 states are kept.

    Args:
        model: the language model.
        draft: [B, k] int.
        state: of the tokens before it.

    Raises:
        ConfigError: for tokens or a state that do not fit the model.
    """
    draft = check_tokens(draft, model.config.vocab)
    state = reserve_room(model, state, draft.shape)
    graph, params = nnx.split(model)
    return Verified(*_verify(graph, params, draft, state))


@dataclasses.dataclass(frozen=True)
class Sampling(Config):
    """How to sample the next token.

    Attributes:
        temperature: 0 takes the most likely token, 1 samples from the model's distribution.
        top_k: sample from the k most likely tokens; None for all.
        top_p: then from the fewest most likely tokens with total probability p, in (0, 1].
        seed: in [0, 2**32); the same seed gives the same text.
        vocab: sample only ids below it, for a tokenizer smaller than the model's vocabulary.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    vocab: int | None = None

    def validate(self) -> None:
        """Check the ranges above."""
        require(self.vocab is None or self.vocab >= 1, f"vocab={self.vocab} must be at least 1.")
        require(self.temperature >= 0, f"temperature={self.temperature} must be at least 0.")
        require(self.top_k is None or self.top_k >= 1, f"top_k={self.top_k} must be at least 1.")
        require(self.top_p is None or 0 < self.top_p <= 1, f"top_p={self.top_p} must be in (0, 1].")
        require(0 <= self.seed < 2**32, f"seed={self.seed} must lie in [0, 2**32).")


@typed
def sample(key: Array, logits: Logits, sampling: Sampling) -> RowIntegers:
    """Sample tokens [B] from logits [B, vocab]."""
    logits = logits[:, : sampling.vocab]
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        kth = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if sampling.top_p is not None:
        ordered = jnp.sort(logits, axis=-1)[:, ::-1]
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        last = jnp.min(jnp.where(before < sampling.top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < last, -jnp.inf, logits)
    return jax.random.categorical(key, logits, axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _step(graph, params, logits, state, key, sampling: Sampling):
    token = sample(key, logits, sampling)
    logits, state = nnx.merge(graph, params)(token[:, None], state=state)
    return token, logits[:, -1], state


class Step(NamedTuple):
    """A generated token [B], the logits of the next one [B, vocab], and the state after it."""

    token: np.ndarray
    logits: Array
    state: ModelState


@typed
def steps(
    model: LanguageModel,
    logits: Logits,
    state: ModelState,
    length: int,
    sampling: Sampling | None = None,
) -> Iterator[Step]:
    """Generate tokens one by one.

    Args:
        model: the language model.
        logits: of the first token [B, vocab], from `prefill`.
        state: from `prefill`.
        length: number of tokens.
        sampling: how to sample; the defaults of `Sampling` if not given.

    Raises:
        ConfigError: for a value out of range, or a state that does not fit the model.
    """
    check_length(length)
    sampling, state = sampling or Sampling(), reserve_room(model, state, (len(logits), length))

    def one_by_one() -> Iterator[Step]:
        graph, params = nnx.split(model)
        carry = logits, state
        static = dataclasses.replace(sampling, seed=0)  # one program for all seeds
        key = jax.random.key(sampling.seed)
        for n in range(length):
            token, *carry = _step(graph, params, *carry, jax.random.fold_in(key, n), static)
            yield Step(np.asarray(token), *carry)

    return one_by_one()


def check_length(length: int) -> None:
    """Raise `ConfigError` for a number of new tokens outside [0, 2**32)."""
    require(length >= 0, f"length={shown(length)} must not be negative.")
    require(length < 2**32, f"length={shown(length)} must be less than 2**32.")


@typed
def generate(
    model: LanguageModel, prompt: TokenIds, length: int, **options: float | int | None
) -> np.ndarray:
    """Continue a prompt.

    Args:
        model: the language model.
        prompt: [B, T] int, T >= 1.
        length: number of tokens to generate.
        **options: see `Sampling`.

    Returns:
        New tokens [B, length].

    Raises:
        ConfigError: for a value out of range, or a prompt that is empty or outside the vocabulary.
    """
    prompt = check_tokens(prompt, model.config.vocab)
    check_length(length)
    sampling = Sampling(**options)  # pyright: ignore[reportArgumentType]
    tokens = [step.token for step in steps(model, *prefill(model, prompt), length, sampling)]
    return np.stack(tokens, axis=1) if tokens else np.zeros((len(prompt), 0), np.int32)
