"""Masking: rows compacted to their present tokens, and results scattered back to token order.

A mask marks the present tokens. Layers that carry a state from token to token see a row's present
tokens first, in their order, then empty places.
"""

from typing import NamedTuple

import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.layout import count_before, own_ids


class CompactRows(NamedTuple):
    """B rows of T places: a row's present tokens fill the first ones, in their order.

    Attributes:
        mask: [B, T] bool, which tokens are present.
        present: [B, T] bool, which places hold a present token.
        count: [B] int32, the present tokens of each row.
        source: [B, T] int32, the token at each place.
        place: [B, T] int32, the place of each token.
    """

    mask: Array
    present: Array
    count: Array
    source: Array
    place: Array

    def packed(self, x: Array) -> Array:
        """[B, T, ...] in token order, gathered to places; zeros at empty places."""
        return where(self.present, take_tokens(x, self.source), 0)

    def spread(self, x: Array) -> Array:
        """[B, T, ...] by place, scattered to token order; zeros at masked tokens."""
        return where(self.mask, take_tokens(x, self.place), 0)

    def ids(self, segment_ids: Array | None, start: Array) -> Array:
        """Segment ids by place; an empty place takes the id of the last token, or `start` [B]."""
        ids = None if segment_ids is None else take_tokens(segment_ids, self.source)
        return own_ids(ids, start, self.present)


def compact(mask: Array) -> CompactRows:
    """The compact rows of a mask [B, T]."""
    time = jnp.arange(mask.shape[1], dtype=jnp.int32)
    count = jnp.sum(mask, axis=1, dtype=jnp.int32)
    place = jnp.where(mask, count_before(mask), count[:, None] + count_before(~mask))
    row = jnp.arange(mask.shape[0])[:, None]
    source = jnp.zeros_like(place).at[row, place].set(jnp.broadcast_to(time, place.shape))
    return CompactRows(mask, time < count[:, None], count, source, place)


def take_tokens(x: Array, index: Array) -> Array:
    """Gather along time, row by row: x [B, T, ...] at index [B, S], to [B, S, ...]."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)


def where(mask: Array, x: Array, value: float) -> Array:
    """x where the mask is True, elsewhere a constant.

    Args:
        mask: bool, [B] or [B, T]: the shape of the leading axes of x.
        x: [B, ...] or [B, T, ...].
        value: the constant.
    """
    assert x.shape[: mask.ndim] == mask.shape, f"mask {mask.shape} over {x.shape}"
    rest = [1] * (x.ndim - mask.ndim)
    return jnp.where(mask.reshape(*mask.shape, *rest), x, jnp.asarray(value, x.dtype))
