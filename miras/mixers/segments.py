"""Segments: the tokens of a call laid out as tiles, each of one segment of a document.

A segment is L tokens of one document, counted from the document's start. A call begins and ends
anywhere in one.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.layout import Positions, place
from miras.engine.masking import take_tokens, where


class Segments(NamedTuple):
    """A call's T tokens in N tiles of `width` slots, and where the tiles stand in their documents.

    Attributes:
        width: slots of a tile: L, or fewer where a call is shorter than a segment.
        source: [B, N * width], the token in each slot, T where it is empty; None where tiles are
            slices of the call.
        slot: [B, T], the slot of each token; arbitrary for an absent one.
        present: [B, N, width] bool, which slots hold a token; None where all do.
        position: [B, T], position of each token in its segment.
        resets: [B, N] bool, whether the tile begins a document other than the one before it.
        complete: [B, N] bool, whether the tile ends its segment.
        last: [B], the tile of the row's last token; 0 without tokens.
        read: [B] bool, whether the row has tokens.
        end_position: [B], position of the next token.
        end_segment: [B], segment id after the call.
    """

    width: int
    source: Array | None
    slot: Array
    present: Array | None
    position: Array
    resets: Array
    complete: Array
    last: Array
    read: Array
    end_position: Array
    end_segment: Array

    @property
    def tile(self) -> Array:
        """The tile of each token, [B, T]."""
        return self.slot // self.width

    @property
    def count(self) -> int:
        """N."""
        return self.resets.shape[1]

    def tiles(self, x: Array) -> Array:
        """[B, T, ...] as [B, N, width, ...]; zeros in empty slots."""
        if self.source is not None:
            length = x.shape[1]
            x = take_tokens(x, jnp.minimum(self.source, length - 1))
            x = where(self.source < length, x, 0)
        else:
            extra = self.count * self.width - x.shape[1]
            x = jnp.pad(x, [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(x.shape[0], self.count, self.width, *x.shape[2:])

    def tokens(self, x: Array) -> Array:
        """[B, N, width, ...] as [B, T, ...]."""
        x = x.reshape(x.shape[0], -1, *x.shape[3:])
        if self.source is None:
            return x[:, : self.slot.shape[1]]
        return take_tokens(x, self.slot)


def tiles_at_most(length: int, segment: int, *, continued: bool) -> int:
    """Tiles that T tokens of one document need, wherever in a segment the call begins."""
    return 1 if length == 1 else math.ceil(length / segment) + continued


def lay_out(
    at: Positions, mask: Array | None, segment: int, tiles: int, *, sliced: bool
) -> Segments:
    """The layout of a call in `tiles` tiles, which must hold its tokens.

    Args:
        at: positions of the tokens in their segments.
        mask: [B, T], False for padding at the end of a row; None without padding.
        segment: L.
        tiles: N.
        sliced: whether tiles are slices of the call: it begins at a segment's start, and so does
            every document in it; or it is a single token.
    """
    batch, length = at.position.shape
    if sliced or length == 1:
        width = min(segment, length)
        source = None
        slot = jnp.broadcast_to(jnp.arange(length), (batch, length))
        there = jnp.ones((batch, length), bool) if mask is None else mask
        full = mask is None and tiles * width == length
        empty = [(0, 0), (0, tiles * width - length)]
        present = None if full else jnp.pad(there, empty).reshape(batch, tiles, width)
    else:
        width = segment
        source, slot = place(at, segment, tiles)
        present = (source < length).reshape(batch, tiles, width)
    there = jnp.ones((batch, length), bool) if mask is None else mask
    tile = jnp.where(there, slot // width, tiles)  # out of range for an absent token
    row = jnp.arange(batch)[:, None]

    def any_of(flags: Array) -> Array:
        return jnp.zeros((batch, tiles), bool).at[row, tile].max(flags, mode="drop")

    return Segments(
        width=width,
        source=source,
        slot=slot,
        present=present,
        position=at.position,
        resets=any_of(at.reset),
        complete=any_of(at.position == segment - 1),
        last=jnp.max(jnp.where(there, slot // width, 0), axis=1),
        read=jnp.any(there, axis=1),
        end_position=at.end_position,
        end_segment=at.end_segment,
    )


class Numbers(NamedTuple):
    """The place of each tile in its document.

    Attributes:
        before: [B, N], complete segments of the document before the tile.
        first: [B, N], the call's tile at which the document began; -1 if before the call.
    """

    before: Array
    first: Array


def numbers(segments: Segments, before: Array) -> Numbers:
    """Where tiles stand, after `before` [B] complete segments of the state's document."""
    index = jnp.arange(segments.count, dtype=jnp.int32)
    first = jax.lax.cummax(jnp.where(segments.resets, index, -1), axis=1)
    return Numbers(jnp.where(first < 0, before[:, None] + index, index - first), first)
