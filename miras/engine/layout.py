"""Layout: where chunks begin, and how tokens are placed so that each tile lies in one chunk.

A chunk is C tokens of one segment, counted from the segment's start. Its edges depend on the data
where segments begin anywhere, tokens are masked, or a state stops inside a chunk. The fast path
moves tokens into tiles of C slots whose edges are chunk edges, and leaves slots empty where a chunk
is cut short. A masked token takes no position and no slot.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array


class Positions(NamedTuple):
    """The position of each token in its chunk.

    Attributes:
        position: [B, T], tokens since its chunk began, in [0, C).
        reset: [B, T], whether it begins a segment other than the one before it.
        end_position: [B], the position of the next token after the call.
        end_segment: [B], the segment id after the call.
        present: [B, T], whether the token is present; None for all. The position of an absent token
            is arbitrary, and it resets nothing.
    """

    position: Array
    reset: Array
    end_position: Array
    end_segment: Array
    present: Array | None = None


def positions(
    segment_ids: Array | None,
    start_position: Array,
    start_segment: Array,
    length: int,
    chunk: int,
    mask: Array | None = None,
) -> Positions:
    """Positions of `length` tokens after a state.

    Args:
        segment_ids: [B, T], or None to continue the state's segment.
        start_position: [B], the state's position.
        start_segment: [B], the state's segment.
        length: T.
        chunk: C.
        mask: [B, T] bool, which tokens are present; None for all.
    """
    if mask is not None:
        return _of_own(segment_ids, start_position, start_segment, chunk, mask)
    time = jnp.arange(length)[None, :]
    if segment_ids is None:
        absolute = start_position[:, None] + time
        reset = jnp.zeros(absolute.shape, bool)
        end_segment = start_segment
    else:
        before = jnp.concatenate([start_segment[:, None], segment_ids[:, :-1]], axis=1)
        reset = segment_ids != before
        begin = jnp.where(reset, time, -start_position[:, None])
        absolute = time - jax.lax.cummax(begin, axis=1)
        end_segment = segment_ids[:, -1]
    position = (absolute % chunk).astype(jnp.int32)
    return Positions(position, reset, (position[:, -1] + 1) % chunk, end_segment)


def _of_own(
    segment_ids: Array | None, start_position: Array, start_segment: Array, chunk: int, mask: Array
) -> Positions:
    """`positions` of the present tokens, as if there were no others."""
    before = count_before(mask)
    ids = own_ids(segment_ids, start_segment, mask)
    changes = ids != jnp.concatenate([start_segment[:, None], ids[:, :-1]], axis=1)
    begin = jnp.where(changes, before, -start_position[:, None])
    position = ((before - jax.lax.cummax(begin, axis=1)) % chunk).astype(jnp.int32)
    end_position = (position[:, -1] + mask[:, -1]) % chunk
    return Positions(position, changes, end_position, ids[:, -1], mask)


def count_before(mask: Array) -> Array:
    """The number of present tokens before each one, [B, T]."""
    there = mask.astype(jnp.int32)
    return jnp.cumsum(there, axis=1) - there


def own_ids(segment_ids: Array | None, start_segment: Array, mask: Array) -> Array:
    """Segment ids [B, T]; a masked token takes the id of the last present token before it."""
    start_segment = start_segment[:, None]
    if segment_ids is None:
        return jnp.broadcast_to(start_segment, mask.shape)
    last = jax.lax.cummax(jnp.where(mask, jnp.arange(mask.shape[1]), -1), axis=1)
    ids = jnp.take_along_axis(segment_ids, jnp.maximum(last, 0), axis=1)
    return jnp.where(last < 0, start_segment, ids.astype(start_segment.dtype))


class Placement(NamedTuple):
    """A placement of T tokens in N tiles of C slots.

    Attributes:
        source: [B, N * C], the token in each slot, T where it is empty.
        slot: [B, T], the slot of each token; arbitrary for a masked one.
    """

    source: Array
    slot: Array


def tiles_needed(at: Positions) -> Array:
    """The number of tiles that each row fills, [B]."""
    return _tile_of(at)[:, -1] + 1


def place(at: Positions, chunk: int, tiles: int) -> Placement:
    """Place each token in its chunk's tile at its position."""
    batch, length = at.position.shape
    slot = _tile_of(at) * chunk + at.position
    row = jnp.arange(batch)[:, None]
    empty = jnp.full((batch, tiles * chunk), length, jnp.int32)
    tokens = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    into = slot if at.present is None else jnp.where(at.present, slot, tiles * chunk)
    return Placement(empty.at[row, into].set(tokens, mode="drop"), slot)


def _tile_of(at: Positions) -> Array:
    """Which tile holds each token: a new one at each chunk edge, which a reset is too."""
    if at.present is None:
        edge = (at.position == 0).at[:, 0].set(False)
    else:
        edge = (at.position == 0) & at.present & (count_before(at.present) > 0)
    return jnp.cumsum(edge.astype(jnp.int32), axis=1)
