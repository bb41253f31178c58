"""Compact: rows without their masked tokens, and what was made of them put back in place.

A mask says which tokens are there. Parts that carry something from token to token see the tokens
that are there side by side at the beginning of each row, with nothing behind them.
"""

from typing import NamedTuple

import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.layout import count_before, own_ids


class Rows(NamedTuple):
    """B rows of T places, of which a row's own tokens take the first ones in their order.

    Attributes:
        mask: [B, T], which tokens are there.
        own: [B, T], whether a place holds one.
        count: [B], how many there are.
        source: [B, T], the token at each place.
        place: [B, T], the place of each token.
    """

    mask: Array
    own: Array
    count: Array
    source: Array
    place: Array

    def packed(self, x: Array) -> Array:
        """[B, T, ...] by token to the same by place; zeros where a place is empty."""
        return where(self.own, along(x, self.source), 0)

    def spread(self, x: Array) -> Array:
        """[B, T, ...] by place to the same by token; zeros where a token is masked."""
        return where(self.mask, along(x, self.place), 0)

    def ids(self, segment_ids: Array | None, start: Array) -> Array:
        """Segment ids by place; an empty one has that of the last token, or `start` [B]."""
        ids = None if segment_ids is None else along(segment_ids, self.source)
        return own_ids(ids, start, self.own)


def compact(mask: Array) -> Rows:
    """The rows that a mask [B, T] leaves."""
    time = jnp.arange(mask.shape[1], dtype=jnp.int32)
    count = jnp.sum(mask, axis=1, dtype=jnp.int32)
    place = jnp.where(mask, count_before(mask), count[:, None] + count_before(~mask))
    row = jnp.arange(mask.shape[0])[:, None]
    source = jnp.zeros_like(place).at[row, place].set(jnp.broadcast_to(time, place.shape))
    return Rows(mask, time < count[:, None], count, source, place)


def along(x: Array, index: Array) -> Array:
    """Gather along time, per row: x [B, T, ...], index [B, S]."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)


def where(mask: Array, x: Array, value: float) -> Array:
    """X [B, T, ...] where the mask [B, T] holds, elsewhere a value, to which no gradient flows."""
    return jnp.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, jnp.asarray(value, x.dtype))
