"""Decays per channel: products over time that differ from row to row or column to column.

The product between two tokens is exp(sum of logs), <= 1. It is computed in these steps:

1. Tokens are split into blocks of 4.
2. Two tokens of one block: exp of the sum of the logs between them, for all pairs d apart at once.
3. Two tokens of different blocks: the product of two factors, from the earlier token to the start
   of the later token's block and from there to the later token. Both are <= 1, so where one of them
   underflows the product does too.

The result is exact at any log decay: no exponent is positive, and none is the difference of two
longer sums, which would cancel. No result depends on a later token, not even in its rounding.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.memory import Memory
from miras.optim.coefficients import MIN_LOG
from miras.parts.gate import Side

BLOCK = 4


class DecaySums(NamedTuple):
    """Sums of the log decays of D channels over C tokens, all [C, D].

    Attributes:
        log: of each token.
        own: log decay applied between W_{t-1} and the state that token t reads: `log`, or 0.
        since_start: from the start to the state that token t reads.
    """

    log: Array
    own: Array
    since_start: Array

    def rest(self) -> Array:
        """From after token t to the end, [C, D]."""
        t, i = _places(self.log.shape[0])
        return _summed(i > t, self.log)


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

    @property
    def turned(self) -> "Decay":
        """The decay of W^T."""
        return Decay(self.scalar, self.column, self.row)

    def of_output(self, y: Array) -> Array:
        """y [C, out] as the columns and the scalar decay it."""
        y = y if self.column is None else y * jnp.exp(self.column)
        return y if self.scalar is None else y * jnp.exp(self.scalar)[:, None]

    def sums(self) -> tuple[DecaySums | None, DecaySums | None]:
        """The sums over rows and over columns, as of W_t."""
        return _sums(self.row), _sums(self.column)


def _sums(log_decay: Array | None) -> DecaySums | None:
    if log_decay is None:
        return None
    t, i = _places(log_decay.shape[0])
    return DecaySums(log_decay, log_decay, _summed(i <= t, log_decay))


def _places(size: int) -> tuple[Array, Array]:
    """The row and the column of each entry of a [C, C]."""
    return jnp.arange(size)[:, None], jnp.arange(size)[None, :]


def _summed(which: Array, x: Array) -> Array:
    """Sums of the rows of x [C, D] that a row of `which` [T, C] names, each on its own."""
    return jnp.matmul(which.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)


def sums_before(sums: DecaySums | None, decay_first: bool) -> DecaySums | None:
    """The sums as of where token t's gradient is taken: W_{t-1}, or alpha_t W_{t-1}."""
    if sums is None or decay_first:
        return sums
    return sums._replace(own=jnp.zeros_like(sums.log), since_start=_shifted(sums.since_start, 1))


def decay_of(memory: Memory, name: str, log_decays: Mapping[Side, Array]) -> Decay:
    """The decay of a weight under log decays by side, [C] for "head" and [C, D] else, >= MIN_LOG.

    A side that the weight lacks acts on it by its channels' geometric mean. Under a decay per head
    alone, `scalar` is the same array object for every weight; `step._steps` compares ids to reuse
    coefficients.
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


def scores(x: Array, X: Array, row: DecaySums | None) -> Array:
    """sum_i x[t, i] X[s, i] times the decay of row i between s and t, [C, C].

    For s <= t; finite, of no use, above.

    Args:
        x: [C, in].
        X: [C, in].
        row: sums over the rows, None for 0.
    """
    if row is None:
        return x @ X.T
    parts = []
    queries = x * jnp.exp(_late(row))
    for low, high, early in _earlier_blocks(row):
        block = queries[low:high] @ (X[:low] * jnp.exp(early)).T
        parts.append(jnp.pad(block, ((0, 0), (0, x.shape[0] - low))))
    total = _from_second_block(parts, x.shape[0], x.shape[0], x.dtype)
    for apart, pairs, log in _own_block(row):
        both = x * _shifted(X, apart)
        both = both if log is None else both * jnp.exp(log)
        found = jnp.sum(both, axis=1, keepdims=True)
        total = total + jnp.where(pairs, found, 0.0)
    return total


def read_writes(
    c: Array, x: Array, X: Array, E: Array, row: DecaySums | None, column: DecaySums | None
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
    weights = c * scores(x, X, row)
    if column is None:
        return weights @ E
    parts = []
    for low, high, early in _earlier_blocks(column):
        parts.append(weights[low:high, :low] @ (E[:low] * jnp.exp(early)))
    total = jnp.exp(_late(column)) * _from_second_block(parts, E.shape[0], E.shape[1], E.dtype)
    for apart, pairs, log in _own_block(column):
        own = jnp.sum(jnp.where(pairs, weights, 0.0), axis=1, keepdims=True)
        scale = own if log is None else own * jnp.exp(log)
        total = total + scale * _shifted(E, apart)
    return total


def _late(sums: DecaySums) -> Array:
    """The sums from the start of its block to what each token reads, [C, D]."""
    t, i = _places(sums.log.shape[0])
    return _summed((t // BLOCK == i // BLOCK) & (i < t), sums.log) + sums.own


def _earlier_blocks(sums: DecaySums) -> Iterator[tuple[int, int, Array]]:
    """Each block but the first, with what all tokens before it have decayed since.

    Yields:
        The block's first token and its end, and the sums from after each earlier token to the
        block's start [low, D].
    """
    size = sums.log.shape[0]
    t, i = _places(size)
    rest = _summed((t // BLOCK == i // BLOCK) & (i > t), sums.log)
    early = rest[:BLOCK]
    for low in range(BLOCK, size, BLOCK):
        high = min(low + BLOCK, size)
        yield low, high, early
        whole = jnp.sum(sums.log[low:high], axis=0, keepdims=True)
        early = jnp.concatenate([early + whole, rest[low:high]])


def _own_block(sums: DecaySums) -> Iterator[tuple[int, Array, Array | None]]:
    """The pairs of tokens of one block, by how far they lie apart.

    Yields:
        d = 0, 1, ..., which entries of a [C, C] are pairs (t, t - d), and for each t the sum of
        logs from after t - d to what t reads [C, D]; None for d = 0, where there are none.
    """
    size = sums.log.shape[0]
    t, s = _places(size)
    yield 0, t == s, None
    log = sums.own
    for apart in range(1, min(BLOCK, size)):
        yield apart, (t - s == apart) & (t // BLOCK == s // BLOCK), log
        log = log + _shifted(sums.log, apart)


def _shifted(x: Array, by: int) -> Array:
    """Row t of x [C, D] at t + by, and 0 where there is none."""
    return jnp.pad(x[: x.shape[0] - by], ((by, 0), (0, 0))) if by else x


def _from_second_block(parts: list[Array], size: int, width: int, dtype) -> Array:
    """Rows of all blocks but the first, after rows of 0: [size, width]."""
    first = jnp.zeros((min(BLOCK, size), width), dtype)
    return jnp.concatenate([first, *parts]) if parts else first


def ratios(sums: DecaySums) -> Array:
    """The decay between s and what t reads, for s < t; 1 for s = t and 0 above.

    [C, C, D]: for small D or slow paths.
    """
    size, width = sums.log.shape
    t, s = _places(size)
    since = jnp.where((s < t)[:, :, None], sums.log[:, None, :], 0.0).reshape(size, -1)
    logs = _summed(s < t, since).reshape(size, size, width)
    logs = logs + jnp.where((s < t)[:, :, None], sums.own[:, None, :], 0.0)
    return jnp.where((s <= t)[:, :, None], jnp.exp(logs), 0.0)
