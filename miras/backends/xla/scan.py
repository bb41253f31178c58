"""The XLA backend: tokens laid out as tiles, each one call of the chunk step, and the walk's ends.

How tiles are gone through, and what is kept of it for the backward pass, is in `walk`.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from miras.array_typing import Array, Weights
from miras.backends.xla.loop import Loop, SaveEvery, group_of, in_order
from miras.backends.xla.rounding import rounded
from miras.engine.averaging import AVERAGE, averages, held_to
from miras.engine.devices import varying_alike
from miras.engine.layout import Positions, place, positions, tiles_needed
from miras.engine.masking import along
from miras.engine.state import State, dual_start, initial_state, split_fixed
from miras.engine.step import Fast, Semantics, Tile
from miras.engine.tile import Constants, tile_step
from miras.rule.precision import FULL, Precision
from miras.rule.rule import Rule


def run(
    rule: Rule,
    W0: Weights,
    q: Array,
    k: Array,
    v: Array,
    gates: dict[str, Array],
    *,
    chunk: int,
    how: Semantics,
    k_write: Array | None,
    state: State | None,
    segment_ids: Array | None,
    mask: Array | None,
    segments_at_chunks: bool,
    at_chunk_edge: bool = False,
    save_every: SaveEvery = None,
    precision: Precision = FULL,
    average: Array | None = None,
    loop: Loop | None = None,
    tile: int | None = None,
) -> tuple[Array, State, Array]:
    """All tokens, tile by tile.

    Args and results are those of `scan_with_loss` after its checks, every gate present; `loop` is
    what goes through the tiles, by default `in_order`, `tile` their size, a divisor of the chunk
    and by default the chunk. Where tokens are taken one by one, neither is used.
    """
    batch, length = q.shape[:2]
    dtype = jnp.promote_types(jnp.float32, q.dtype)
    fast, fixed = split_fixed(rule, W0)
    start, at_edge = state, state is None or at_chunk_edge
    if start is None:
        widths = k.shape[-1], v.shape[-1]
        start = initial_state(rule, W0, batch, *widths, refine=how.refine, dtype=dtype)
    start = _cast(start, precision.kept(dtype))
    if how.exact or rule.algorithm.online:  # chunks are tiles only: begin one here
        start = dataclasses.replace(start, position=jnp.zeros_like(start.position))
        aligned = segment_ids is None or (segments_at_chunks and at_edge)
    else:
        aligned = at_edge and (segment_ids is None or segments_at_chunks)
    aligned = aligned and mask is None  # each row's chunk edges then depend on its mask
    at = positions(segment_ids, start.position, start.segment, length, chunk, mask)
    write = jnp.ones((batch, length), dtype) if mask is None else mask.astype(dtype)

    if average is not None:
        rows = averages(average.astype(dtype), at, write, q.shape[2])
        gates = {**gates, AVERAGE: rows}

    origin = dual_start(rule, {name: leaf.astype(dtype) for name, leaf in fast.items()})
    constants = Constants({name: leaf.astype(dtype) for name, leaf in fixed.items()}, origin)
    step = rounded(functools.partial(tile_step, rule, how, chunk), precision)
    fire_at = 0 if rule.retention.lag else chunk - 1
    slots = tile or (min(chunk, length) if aligned else chunk)
    parts = max(chunk // slots, 1)  # tiles of a chunk
    token_streams = {"q": q, "k": k, "v": v, "k_write": k_write, "write": write, "gates": gates}
    first = Fast(start.A, start.S, start.V, start.R, start.L, start.window, start.sweeps)
    first, constants, token_streams, at = varying_alike((first, constants, token_streams, at))

    def in_chunks(chunks: int):
        """Tiles of a chunk's slots; tokens are moved unless chunk edges are known to be static."""
        tiles = parts * chunks
        size = tiles * slots
        part = jnp.arange(tiles) % parts
        if aligned:
            present = jnp.broadcast_to(jnp.arange(size) < length, (batch, size))
            moved = jax.tree.map(lambda x: _pad(x, size), token_streams)
            if average is not None:
                moved["gates"][AVERAGE] = held_to(token_streams["gates"][AVERAGE], size)
            resets = None if segment_ids is None else _pad(at.reset, size)
        else:
            placement = place(at, chunk, chunks)
            present = placement.source < length
            source = jnp.minimum(placement.source, length - 1)
            moved = jax.tree.map(lambda x: along(x, source), token_streams)
            moved["write"] = moved["write"] * present.astype(dtype)
            resets = along(at.reset, source) & present
        by_tile = present.reshape(batch, tiles, slots)
        fires = (part == fire_at // slots) & by_tile[:, :, fire_at % slots]
        begins = None if resets is None else resets.reshape(batch, tiles, slots)[:, :, 0]
        xs = _tiles(
            moved,
            tiles,
            slots,
            fresh=None if aligned and parts == 1 else (part == 0) & by_tile[:, :, 0],
            fire=fires if fire_at < parts * slots else jnp.zeros_like(fires),
            reset=None if begins is None else begins & (part == 0),
        )
        go = loop or functools.partial(in_order, group=group_of(save_every, tiles, parts))
        memory, y, loss = go(step, constants, first, *xs)
        y, loss = _untile(y), _untile(loss)
        if aligned:
            return memory, y[:, :length], loss[:, :length]
        return memory, along(y, placement.slot), along(loss, placement.slot)

    def by_token():
        """Tiles of one token, right wherever chunks begin."""
        begins, fires = at.position == 0, at.position == fire_at
        if mask is not None:
            begins, fires = begins & mask, fires & mask
        xs = _tiles(
            token_streams,
            length,
            1,
            fresh=begins,
            fire=fires,
            reset=None if segment_ids is None else at.reset,
        )
        group = group_of(save_every, length, chunk)
        memory, y, loss = in_order(step, constants, first, *xs, group=group)
        return memory, _untile(y), _untile(loss)

    if aligned:
        memory, y, loss = in_chunks(math.ceil(length / chunk))
    elif chunk == 1 or length == 1 or 8 * length <= chunk:  # shorter than the tiles' overhead
        memory, y, loss = by_token()
    else:
        tiles = math.ceil(length / chunk) + (state is not None)
        if segment_ids is None or (segments_at_chunks and at_edge):
            memory, y, loss = in_chunks(tiles)
        else:
            # Segments that begin at chunk edges need no more tiles than one segment does.
            fits = jnp.max(tiles_needed(at)) <= tiles
            memory, y, loss = jax.lax.cond(
                fits, functools.partial(in_chunks, tiles), jax.checkpoint(by_token)
            )
    end = _state(memory, at)
    if mask is not None and state is not None:
        end = _unless_silent(mask, end, dataclasses.replace(start, position=state.position))
    return y.astype(q.dtype), end, loss


def _state(memory: Fast, at: Positions) -> State:
    return State(*memory, position=at.end_position, segment=at.end_segment)


def _unless_silent(mask: Array, new: State, old: State) -> State:
    """The old state, bit for bit, of rows whose tokens are all masked."""
    speaks = jnp.any(mask, axis=1)

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(speaks.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def _cast(state: State, dtype: DTypeLike) -> State:
    """The state with its numbers in a dtype."""
    is_number = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: x.astype(dtype) if is_number(x) else x, state)


def _pad(x: Array, size: int) -> Array:
    return jnp.pad(x, [(0, 0), (0, size - x.shape[1])] + [(0, 0)] * (x.ndim - 2))


def _tiles(
    streams: dict, tiles: int, size: int, fresh: Array | None, fire: Array, reset: Array | None
) -> tuple[Tile, Array | None]:
    """Token streams [B, N * C, (H, ...)] as a stack of tiles [N, B, (H,) C, ...]."""

    def tiled(x: Array) -> Array:
        x = x.reshape(x.shape[0], tiles, size, *x.shape[2:])
        return jnp.moveaxis(x, 0, 1)

    def by_head(x: Array) -> Array:
        return jnp.moveaxis(tiled(x), 3, 2)

    tile = Tile(
        q=by_head(streams["q"]),
        k=by_head(streams["k"]),
        v=by_head(streams["v"]),
        k_write=None if streams["k_write"] is None else by_head(streams["k_write"]),
        gates={name: by_head(x) for name, x in streams["gates"].items()},
        write=tiled(streams["write"]),
        fresh=None if fresh is None else fresh.T,
        fire=fire.T,
    )
    return tile, None if reset is None else reset.T


def _untile(x: Array) -> Array:
    """[N, B, H, C, ...] back to [B, N * C, H, ...]."""
    x = jnp.moveaxis(x, 2, 3)
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])
