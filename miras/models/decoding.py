"""Decoding: read a prompt, then one token at a time from a state of constant size."""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.config import require
from miras.engine import reserve
from miras.layers import LayerState
from miras.memory import KV
from miras.models.language_model import LanguageModel, check_tokens
from miras.typing import Array


@functools.partial(jax.jit, static_argnums=0)
def _forward(graph, params, tokens: Array, state: LayerState | None):
    logits, state = nnx.merge(graph, params)(tokens, state=state)
    return logits[:, -1], state


def prefill(
    model: LanguageModel, tokens: Array, state: LayerState | None = None
) -> tuple[Array, LayerState]:
    """Read tokens [B, T] in parallel; logits of the next one [B, vocab], and the state."""
    tokens = check_tokens(tokens, model.config.vocab)
    graph, params = nnx.split(model)
    if state is not None:
        state = with_room(model, state, tokens.shape[1])
    return _forward(graph, params, tokens, state)


def with_room(model: LanguageModel, state: LayerState, tokens: int) -> LayerState:
    """The state with room for more tokens, where it grows (kv memories), so that shapes stay."""
    memory = model.config.rule.memory
    return reserve(state, memory, tokens) if isinstance(memory, KV) else state


def decode_step(model: LanguageModel, token: Array, state: LayerState) -> tuple[Array, LayerState]:
    """Read one token [B]; logits of the next one [B, vocab], and the state.

    Equal to the last position of a parallel forward over all tokens so far, to rounding.
    """
    return prefill(model, token[:, None], state)


def sample(
    key: Array, logits: Array, temperature: float, top_k: int | None, top_p: float | None
) -> Array:
    """Draw tokens [B] from logits [B, vocab].

    Args:
        key: PRNG key.
        logits: unnormalised log-probabilities.
        temperature: 0 takes the most likely token.
        top_k: keep the k most likely tokens.
        top_p: then keep the fewest most likely ones whose probabilities reach p.
    """
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits / temperature
    if top_k is not None:
        kth = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if top_p is not None:
        ordered = jnp.sort(logits, axis=-1)[:, ::-1]
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        last = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < last, -jnp.inf, logits)
    return jax.random.categorical(key, logits, axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _step(graph, params, logits, state, key, temperature, top_k, top_p):
    token = sample(key, logits, temperature, top_k, top_p)
    logits, state = nnx.merge(graph, params)(token[:, None], state=state)
    return token, logits[:, -1], state


def stream(
    model: LanguageModel,
    prompt: Array,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """`length` new tokens, [B] each, one by one, after a prompt [B, T]; arguments as `generate`."""
    tokens = check_tokens(prompt, model.config.vocab)
    require(length >= 0, f"length={length} must not be negative.")
    require(
        math.isfinite(temperature) and temperature >= 0,
        f"temperature={temperature} must be a finite number of at least 0.",
    )
    require(top_k is None or top_k >= 1, f"top_k={top_k} must be at least 1.")
    require(top_p is None or 0 < top_p <= 1, f"top_p={top_p} must be in (0, 1].")
    require(0 <= seed < 2**32, f"seed={seed} must lie in [0, 2**32).")

    def tokens_one_by_one() -> Iterator[np.ndarray]:
        graph, params = nnx.split(model)
        logits, state = _forward(graph, params, tokens, None)
        state = with_room(model, state, length)
        for key in jax.random.split(jax.random.key(seed), length):
            token, logits, state = _step(
                graph, params, logits, state, key, temperature, top_k, top_p
            )
            yield np.asarray(token)

    return tokens_one_by_one()


def generate(
    model: LanguageModel,
    prompt: Array,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Continue a prompt.

    Args:
        model: the language model.
        prompt: [B, T] int, T >= 1.
        length: tokens to add.
        temperature: 0 is greedy, 1 samples from the model.
        top_k: sample among the k most likely tokens only.
        top_p: sample from the nucleus of this probability only.
        seed: the same seed gives the same text.

    Returns:
        New tokens [B, length].

    Raises:
        ConfigError: for a value out of range, or a prompt that is empty or not of the vocabulary.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    tokens = list(stream(model, prompt, length, **options))
    return np.stack(tokens, axis=1) if tokens else np.zeros((len(prompt), 0), np.int32)
