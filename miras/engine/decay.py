"""Decays per channel: products over time that differ from row to row or column to column.

A ratio of decays between two tokens is exp(at_t - since_s), <= 1 for s <= t, of sums of logs. As a
product of a factor of t and a factor of s it may overflow, so it is taken in blocks of 8 tokens
from the sums at the block's start: with log decays of at least -5 no exponent passes 40, and
earlier blocks have negative ones. Nothing depends on a later token, not even in its rounding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.memory import Memory
from miras.optim.coefficients import MIN_LOG
from miras.typing import Array

BLOCK = 8


class Sums(NamedTuple):
    """Sums of the log decays of D channels over C tokens.

    Attributes:
        at: [C, D], from the start to the state that token t reads.
        since: [C, D], from the start to token s, itself included.
    """

    at: Array
    since: Array


class Decay(NamedTuple):
    """How one weight decays at each token: by a number, by its rows, by its columns; in logs.

    Attributes:
        scalar: [C], None where it is 1.
        row: [C, in], None where it is 1.
        column: [C, out], None where it is 1.
    """

    scalar: Array | None
    row: Array | None
    column: Array | None

    def factor(self, ndim: int) -> Array:
        """alpha_t as it multiplies a weight of `ndim` dimensions.

        [C, in or 1, out or 1] or [C, out or 1]; C is 1 where nothing decays.
        """
        parts: list[Array] = []
        if self.scalar is not None:
            parts.append(self.scalar.reshape(-1, *[1] * ndim))
        if self.row is not None:
            parts.append(self.row[:, :, None])
        if self.column is not None:
            parts.append(self.column[:, None, :] if ndim == 2 else self.column)
        if not parts:
            return jnp.asarray(1.0).reshape([1] * (ndim + 1))
        return jnp.exp(sum(parts[1:], parts[0]))

    def sums(self) -> tuple[Sums | None, Sums | None]:
        """The sums over rows and over columns, as of W_t."""
        return _sums(self.row), _sums(self.column)


def _sums(log_decay: Array | None) -> Sums | None:
    if log_decay is None:
        return None
    size = log_decay.shape[0]
    lower = jnp.arange(size)[:, None] >= jnp.arange(size)[None, :]
    total = jnp.matmul(
        lower.astype(log_decay.dtype), log_decay, precision=jax.lax.Precision.HIGHEST
    )
    return Sums(total, total)


def before(sums: Sums | None, decay_first: bool) -> Sums | None:
    """The sums as of where token t's gradient is taken: W_{t-1}, or alpha_t W_{t-1}."""
    if sums is None or decay_first:
        return sums
    return Sums(jnp.pad(sums.at[:-1], ((1, 0), (0, 0))), sums.since)


def decay_of(memory: Memory, name: str, log_decays: dict[str, Array]) -> Decay:
    """The decay of a weight under log decays by side, [C] for "head" and [C, D] else, >= MIN_LOG.

    A side that the weight lacks acts on it by its channels' geometric mean. Weights under a decay
    per head alone share its array, by which others know that what they derive from it is shared.
    """
    head, row, column = log_decays.get("head"), None, None
    scalar = head
    sides = memory.sides(name)
    for side, log_decay in log_decays.items():
        if side == "head":
            continue
        if side not in sides:
            mean = jnp.mean(log_decay, axis=-1)
            scalar = mean if scalar is None else scalar + mean
        elif len(sides) == 2 and side == sides[0]:
            row = log_decay
        else:
            column = log_decay
    if scalar is not None and scalar is not head:
        scalar = jnp.maximum(scalar, MIN_LOG)
    return Decay(scalar, row, column)


def scores(x: Array, X: Array, row: Sums | None) -> Array:
    """sum_i x[t, i] X[s, i] exp(at[t, i] - since[s, i]) for s <= t; finite, of no use, above.

    Args:
        x: [C, in].
        X: [C, in].
        row: sums over the rows, None for 0.
    """
    if row is None:
        return x @ X.T
    parts = []
    for low, high in _blocks(x.shape[0]):
        inner = _scaled_scores(x, X, row, low, high)
        parts.append(jnp.pad(inner, ((0, 0), (0, x.shape[0] - high))))
    return jnp.concatenate(parts, axis=0)


def read_writes(
    c: Array, x: Array, X: Array, E: Array, row: Sums | None, column: Sums | None
) -> Array:
    """sum_s c[t, s] (x_t . X_s) E_s with decays per row and column: [C, out].

    Args:
        c: [C, K], 0 where token t does not see write s.
        x: [C, in].
        X: [K, in].
        E: [K, out].
        row: sums over the rows, None for 0; else K = C.
        column: sums over the columns, None for 0; else K = C.
    """
    if row is None and column is None:
        return (c * (x @ X.T)) @ E
    parts = []
    for low, high in _blocks(x.shape[0]):
        inner = _scaled_scores(x, X, row, low, high)
        weighted, values = c[low:high, :high] * inner, E[:high]
        if column is None:
            parts.append(weighted @ values)
            continue
        start = _start(column, low)
        values = values * jnp.exp(start - column.since[:high])
        parts.append(jnp.exp(column.at[low:high] - start) * (weighted @ values))
    return jnp.concatenate(parts, axis=0)


def _blocks(size: int) -> list[tuple[int, int]]:
    """(first, end) of each block of tokens."""
    return [(low, min(low + BLOCK, size)) for low in range(0, size, BLOCK)]


def _start(sums: Sums, low: int) -> Array:
    """The sums before a block's first token."""
    return sums.since[low - 1] if low else jnp.zeros_like(sums.since[0])


def _scaled_scores(x: Array, X: Array, row: Sums | None, low: int, high: int) -> Array:
    """The scores of a block of tokens with all writes up to its end: [high - low, high]."""
    if row is None:
        return x[low:high] @ X[:high].T
    start = _start(row, low)
    queries = x[low:high] * jnp.exp(row.at[low:high] - start)
    return queries @ (X[:high] * jnp.exp(start - row.since[:high])).T


def ratios(sums: Sums) -> Array:
    """exp(at[t] - since[s]) for s <= t and 0 above, [C, C, D]; for small D or slow paths."""
    size = sums.at.shape[0]
    lower = (jnp.arange(size)[:, None] >= jnp.arange(size)[None, :])[:, :, None]
    difference = sums.at[:, None, :] - sums.since[None, :, :]
    return jnp.where(lower, jnp.exp(jnp.where(lower, difference, 0.0)), 0.0)
