"""The cache of memories at the ends of segments: which are held, where, and who sees them.

Entry e is the memory after a document's e-th segment, e = 1, 2, ... A token in the segment after n
complete ones sees

    constant    n - e < M                                the last M segments
    binary      n - e < min(lowest bit of e, 2^M - 1)    the blocks of n's binary expansion

of which the cache holds all in M slots: an entry takes the slot of one that no later token sees.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.state import State
from miras.mixers.segments import Numbers, Segments

Segmentation = Literal["constant", "binary"]
LEVELS = 31  # bits of a number of segments


class CacheState(NamedTuple):
    """The state of cached memories between calls.

    Attributes:
        memory: the current memory.
        cached: dual states of the memories in M slots, leaves [B, M, H, ...].
        ends: [B, M] int32, entry e of each slot; 0 for an empty one.
        keys: sums of keys: of each slot's segment, [B, M, H, Dk]; with binary segments of the
            document's last block of 2^s segments, [B, 31, H, Dk] by s.
        key_sum: [B, H, Dk], of the current segment's keys.
        position: [B] int32, tokens of the current segment.
        count: [B] int32, complete segments of the document.
    """

    memory: State
    cached: Weights
    ends: Array
    keys: Array
    key_sum: Array
    position: Array
    count: Array

    @property
    def segment(self) -> Array:
        """Id of the last token's document, [B]."""
        return self.memory.segment


def lowest_bit(e: Array) -> Array:
    """The lowest bit of e >= 1, which is the number of segments in its block."""
    return e & -e


def sees(segmentation: Segmentation, slots: int, before: Array, entry: Array) -> Array:
    """Whether a token after `before` complete segments sees an entry of its document."""
    age = before - entry
    limit = slots
    if segmentation == "binary":
        limit = jnp.minimum(lowest_bit(entry), 2 ** min(slots, LEVELS - 1) - 1)
    return (entry > 0) & (age >= 0) & (age < limit)


def slot_of(segmentation: Segmentation, slots: int, entry: Array) -> Array:
    """The slot of entry e >= 1."""
    place = entry if segmentation == "constant" else jax.lax.population_count(entry)
    return (place - 1) % slots


def visible_to_tiles(
    segmentation: Segmentation, slots: int, segments: Segments, at: Numbers, ends: Array | None
) -> Array:
    """Which entries the tokens of each tile see: the state's, if any, then the call's, [B, N, E].

    Args:
        segmentation: how documents are cut.
        slots: M.
        segments: the tiles.
        at: where they stand.
        ends: [B, M], the entries of the state; None without a state.
    """
    index = jnp.arange(segments.count, dtype=jnp.int32)
    own = sees(segmentation, slots, at.before[:, :, None], at.before[:, None, :] + 1)
    own &= (index < index[:, None]) & (index >= at.first[:, :, None])
    if ends is None:
        return own
    old = sees(segmentation, slots, at.before[:, :, None], ends[:, None, :])
    return jnp.concatenate([old & (at.first < 0)[:, :, None], own], axis=2)


class KeySums(NamedTuple):
    """Sums of keys over a call.

    Attributes:
        blocks: [B, N, H, Dk], of the block that each tile ends, if it ends one.
        tokens: [B, N], in that block.
        levels: [B, 31, H, Dk], of the last block at each level, after the call; None if constant.
    """

    blocks: Array
    tokens: Array
    levels: Array | None


def block_sums(
    segmentation: Segmentation,
    length: int,
    segments: Segments,
    at: Numbers,
    tiles: Array,
    keys: Array,
) -> KeySums:
    """Sums of keys by block, from those of tiles [B, N, H, Dk] and the state's `keys`."""
    if segmentation == "constant":
        return KeySums(tiles, jnp.full(at.before.shape, length), None)
    bits = jnp.arange(LEVELS, dtype=jnp.int32)

    def end(levels: Array, tile: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        own, entry, complete = tile
        bit = lowest_bit(entry)[:, None]
        smaller = (1 << bits) < bit  # the blocks that this one is made of, beside its last segment
        block = own + jnp.sum(jnp.where(smaller[..., None, None], levels, 0), axis=1)
        into = ((1 << bits) == bit) & complete[:, None]
        return jnp.where(into[..., None, None], block[:, None], levels), block

    by_tile = tiles, at.before + 1, segments.complete
    levels, blocks = jax.lax.scan(end, keys, jax.tree.map(lambda x: x.swapaxes(0, 1), by_tile))
    return KeySums(blocks.swapaxes(0, 1), length * lowest_bit(at.before + 1), levels)


def means_of_slots(segmentation: Segmentation, length: int, ends: Array, keys: Array) -> Array:
    """The mean of each slot's keys, [B, M, H, Dk]."""
    bit = lowest_bit(jnp.maximum(ends, 1))
    if segmentation == "constant":
        return keys / length
    level = jax.lax.population_count(bit - 1)
    own = jnp.take_along_axis(keys, level[..., None, None], axis=1)
    return own / (length * bit)[..., None, None].astype(keys.dtype)


def held_after(
    segmentation: Segmentation, slots: int, segments: Segments, at: Numbers, ends: Array
) -> tuple[Array, Array]:
    """Which entries the cache holds after a call.

    Returns:
        The index of each slot's among the M of the state and the N of the call, and `ends`, both
        [B, M].
    """
    index = jnp.arange(segments.count, dtype=jnp.int32)
    first = jnp.take_along_axis(at.first, segments.last[:, None], axis=1)
    entry = at.before + 1
    kept = segments.complete & (index >= first)
    to = slot_of(segmentation, slots, entry)[:, None, :] == jnp.arange(slots)[:, None]
    latest = jnp.max(jnp.where(to & kept[:, None, :], index + 1, 0), axis=2)
    new = jnp.take_along_axis(entry, jnp.maximum(latest - 1, 0), axis=1)
    old = jnp.where(first < 0, ends, 0)
    source = jnp.where(latest > 0, slots + latest - 1, jnp.arange(slots))
    return source, jnp.where(latest > 0, new, old)
