"""Decoding: read a prompt, then one token at a time from a state of constant size."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.array_typing import Array
from miras.config import Config, require
from miras.config.choices import shown
from miras.models import rows
from miras.models.language_model import LanguageModel, as_rows, check_tokens
from miras.models.mac import MACState
from miras.models.scoring import first_ones, read_rows, ready
from miras.models.state import ModelState


@functools.partial(jax.jit, static_argnums=0)
def _forward(graph, params, tokens: Array, state: ModelState | None):
    logits, state = nnx.merge(graph, params)(tokens, state=state)
    return logits[:, -1], state


def prefill(
    model: LanguageModel,
    tokens: Array,
    state: ModelState | None = None,
    *,
    mask: Array | None = None,
) -> tuple[Array, ModelState]:
    """Read tokens in parallel, in pieces of any size.

    Args:
        model: the language model.
        tokens: [B, T] int, T >= 1.
        state: where to go on from; a new one if not given.
        mask: [B, T] bool, which of them are a row's own, where rows differ in length: at least one,
            with padding before, after or between them. A row ends as if it had been read alone; one
            program serves all masks. `score` takes rows without tokens, too.

    Returns:
        Logits of the token after each row's last [B, vocab], and the state.

    Raises:
        ConfigError: for tokens, a mask or a state that do not fit.
    """
    tokens = as_rows(tokens)
    lengths = None
    if mask is not None:
        tokens, lengths = _own_first(tokens, mask)
    own = None if lengths is None else first_ones(lengths, tokens.shape[1])
    tokens = check_tokens(tokens, model.config.vocab, own)
    if state is not None:
        state = ready(model, state, tokens.shape)
    if lengths is None:
        return _in_pieces(model, tokens, state)
    if state is None:
        state = ready(model, model.init_state(len(tokens)), tokens.shape)
    graph, params = nnx.split(model)
    return read_rows(graph, params, tokens, lengths, state)


def _own_first(tokens: Array, mask: Array) -> tuple[Array, Array]:
    """Each row's own tokens at its beginning, [B, T], and how many there are, [B] int32."""
    known = np.asarray(mask)
    require(
        known.shape == tokens.shape and known.dtype == bool,
        f"mask has shape {known.shape} and dtype {known.dtype}: it must be bool {tokens.shape}.",
    )
    lengths = known.sum(axis=1, dtype=np.int32)
    require(
        bool(lengths.min() >= 1),
        f"mask marks no token of row {int(lengths.argmin())}: prefill needs one of each row, which "
        "miras.models.score does not.",
    )
    order = np.argsort(~known, axis=1, kind="stable")
    return jnp.take_along_axis(jnp.asarray(tokens), order, axis=1), jnp.asarray(lengths)


def _in_pieces(
    model: LanguageModel, tokens: Array, state: ModelState | None
) -> tuple[Array, ModelState]:
    """At once, or to the edge of MAC's segment first, behind which whole segments are read."""
    graph, params = nnx.split(model)
    lead = 0 if state is None else _to_edge(model, state)
    if 0 < lead < tokens.shape[1]:
        _, state = _forward(graph, params, tokens[:, :lead], state)
        tokens = tokens[:, lead:]
    return _forward(graph, params, tokens, state)


def _to_edge(model: LanguageModel, state: ModelState) -> int:
    """Tokens to the next segment's edge, where all rows have as many."""
    segment = model.config.attention.segment
    for layer in state.layers:
        if isinstance(layer, MACState):
            counts = np.unique(np.asarray(layer.count) % segment)
            return int(-counts[0] % segment) if len(counts) == 1 else 0
    return 0


def decode_step(
    model: LanguageModel, token: Array, state: ModelState, *, active: Array | None = None
) -> tuple[Array, ModelState]:
    """Read one token [B]; logits of the next one [B, vocab], and the state.

    Equal to the last position of a parallel forward over all tokens so far, to rounding. Rows with
    `active` [B] False keep their state; their logits mean nothing.

    Raises:
        ConfigError: for a token, a state or marks that do not fit.
    """
    token = check_tokens(jnp.asarray(token)[:, None], model.config.vocab)
    before = ready(model, state, token.shape)
    logits, after = _in_pieces(model, token, before)
    return logits, after if active is None else rows.where(active, after, before, "active")


@dataclasses.dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes:
        logits: [B, k, vocab] of the token after each of the draft's.
        states: before the draft and after each of its k tokens, leaves [k + 1, ...].
    """

    logits: Array
    states: ModelState

    def after(self, tokens: int | Array) -> ModelState:
        """The state after the first tokens of the draft, as many for all rows or [B] of them."""
        most = self.logits.shape[1]
        count = np.asarray(tokens)
        whole = np.issubdtype(count.dtype, np.integer)
        legal = whole and count.shape in ((), (len(self.logits),))
        require(
            bool(legal and 0 <= count.min() <= count.max() <= most),
            f"tokens={tokens} must be a whole number, or one for each row, in [0, {most}].",
        )
        count = jnp.broadcast_to(jnp.asarray(count), len(self.logits))
        row = jnp.arange(len(count))
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf[count, :, row], 0, 1), self.states)


@functools.partial(jax.jit, static_argnums=0)
def _verify(graph, params, draft: Array, state: ModelState):
    def read(state, token):
        here = jax.tree.map(jnp.asarray, params)  # Flax asks for variables of the scan's own trace
        logits, after = nnx.merge(graph, here)(token[:, None], state=state)
        return after, (logits[:, 0], after)

    _, (logits, states) = jax.lax.scan(read, state, draft.T)
    whole = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)
    return jnp.swapaxes(logits, 0, 1), whole


def verify(model: LanguageModel, draft: Array, state: ModelState) -> Verified:
    """Score a draft [B, k] in one compiled call, and keep the state after each of its tokens.

    Accept the first n tokens by `found.after(n)`, which computes nothing anew: a memory that has
    learnt from a token cannot unlearn it, so the k + 1 states are kept side by side.

    Raises:
        ConfigError: for tokens or a state that do not fit.
    """
    draft = check_tokens(draft, model.config.vocab)
    state = ready(model, state, draft.shape)
    graph, params = nnx.split(model)
    return Verified(*_verify(graph, params, draft, state))


@dataclasses.dataclass(frozen=True)
class Sampling(Config):
    """How the next token is drawn.

    Attributes:
        temperature: 0 takes the likeliest, 1 samples from the model.
        top_k: sample among the k likeliest tokens only.
        top_p: then among the fewest likeliest ones whose probabilities reach p, in (0, 1].
        seed: the same seed gives the same text, in [0, 2**32).
        vocab: take ids below it only, where the tokenizer has fewer than the model.
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


def sample(key: Array, logits: Array, how: Sampling) -> Array:
    """Draw tokens [B] from logits [B, vocab]."""
    logits = logits[:, : how.vocab]
    if how.temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits / how.temperature
    if how.top_k is not None:
        kth = jax.lax.top_k(logits, min(how.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if how.top_p is not None:
        ordered = jnp.sort(logits, axis=-1)[:, ::-1]
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        last = jnp.min(jnp.where(before < how.top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < last, -jnp.inf, logits)
    return jax.random.categorical(key, logits, axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _step(graph, params, logits, state, key, how: Sampling):
    token = sample(key, logits, how)
    logits, state = nnx.merge(graph, params)(token[:, None], state=state)
    return token, logits[:, -1], state


class Step(NamedTuple):
    """One token [B] of a text, and what it goes on from: logits [B, vocab] and the state."""

    token: np.ndarray
    logits: Array
    state: ModelState


def steps(
    model: LanguageModel,
    logits: Array,
    state: ModelState,
    length: int,
    sampling: Sampling | None = None,
) -> Iterator[Step]:
    """`length` new tokens, one by one, from logits [B, vocab] and a state, as `prefill` gives."""
    check_length(length)
    how, state = sampling or Sampling(), ready(model, state, (len(logits), length))

    def one_by_one() -> Iterator[Step]:
        graph, params = nnx.split(model)
        now = logits, state
        alike = dataclasses.replace(how, seed=0)  # another seed is no other program
        keys = jax.random.key(how.seed)
        for n in range(length):  # the keys of `jax.random.split`, of which no array is made
            token, *now = _step(graph, params, *now, jax.random.fold_in(keys, n), alike)
            yield Step(np.asarray(token), *now)

    return one_by_one()


def check_length(length: int) -> None:
    """Raise `ConfigError` for a number of tokens to add that is none, or beyond all memory."""
    require(length >= 0, f"length={shown(length)} must not be negative.")
    require(length < 2**32, f"length={shown(length)} must be less than 2**32.")


def generate(
    model: LanguageModel, prompt: Array, length: int, **options: float | int | None
) -> np.ndarray:
    """Continue a prompt.

    Args:
        model: the language model.
        prompt: [B, T] int, T >= 1.
        length: tokens to add.
        **options: see `Sampling`.

    Returns:
        New tokens [B, length].

    Raises:
        ConfigError: for a value out of range, or a prompt that is empty or not of the vocabulary.
    """
    prompt = check_tokens(prompt, model.config.vocab)
    check_length(length)
    how = Sampling(**options)  # pyright: ignore[reportArgumentType]
    tokens = [step.token for step in steps(model, *prefill(model, prompt), length, how)]
    return np.stack(tokens, axis=1) if tokens else np.zeros((len(prompt), 0), np.int32)
