"""Which targets a model predicts, from the head's logits of one chunk of tokens after another."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from miras.array_typing import Array
from miras.parallel.table import TableSplit
from miras.train.token_chunks import cut, first_row, loop, over_tokens, restore, token_logits


def predictions(
    x: Array,
    head: Array,
    targets: Array,
    *,
    candidates: int | None = None,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """The negative log likelihood of each target, and whether it is the most likely token.

    Of equally likely tokens the first one is predicted.

    Args:
        x: features [B, T, width], float.
        head: one row per token of the vocabulary, [V, width].
        targets: [B, T] int, in [0, V).
        candidates: only tokens below it are predicted; V if None. The likelihood is that among all.
        chunk: see `token_chunks.chunks_of`.

    Returns:
        nats [B, T] float32 (float64 if x is), and correct [B, T] bool.
    """
    run = functools.partial(_predictions, candidates=candidates or head.shape[0], chunk=chunk)

    def places(split: TableSplit) -> tuple[PartitionSpec, ...]:
        return (PartitionSpec(split.rows, split.time),) * 2

    nats, correct = over_tokens(run, places, x, head, targets)
    return nats, correct


def _predictions(
    x: Array, head: Array, targets: Array, *, candidates: int, chunk: int | None, split: TableSplit
) -> tuple[Array, Array]:
    def step(carry: None, chunk: tuple[Array, Array]):
        x, targets = chunk
        found = token_logits(x, head, targets, split.vocab)
        best = _most_likely(found.logits, first_row(head, split.vocab), candidates, split.vocab)
        return carry, (found.nats, best == targets)

    _, out = loop(step, None, cut(chunk, head.shape[0], x, targets))
    nats, correct = (restore(array, targets.shape) for array in out)
    return nats, correct


def _most_likely(
    logits: Array, first: Array | int, candidates: int, axes: tuple[str, ...]
) -> Array:
    """The most likely token [N] below `candidates`; the device's logits [N, V] begin at `first`."""
    tokens = first + jnp.arange(logits.shape[1])
    logits = jnp.where(tokens < candidates, logits, -jnp.inf)
    best = first + jnp.argmax(logits, axis=1)
    if not axes:
        return best
    own = jnp.max(logits, axis=1)
    wins = own == jax.lax.pmax(own, axes)
    return jax.lax.pmin(jnp.where(wins, best, jnp.iinfo(best.dtype).max), axes)
