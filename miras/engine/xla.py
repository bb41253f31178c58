"""The XLA backend: a `lax.scan` over tiles, each one call of the chunk step."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from miras.engine.chunk import Fast, Semantics, Tile, chunk_step
from miras.engine.layout import Positions, place, positions, tiles_needed
from miras.engine.state import State, dual_start, initial_state, split_fixed
from miras.optim import Newton
from miras.rule import Rule
from miras.typing import Array, Weights


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
) -> tuple[Array, State, Array]:
    """All tokens, chunk by chunk.

    Args and results are those of `scan_with_loss` after its checks, every gate present.
    """
    batch, length = q.shape[:2]
    dtype = jnp.promote_types(jnp.float32, q.dtype)
    fast, fixed = split_fixed(rule, W0)
    start = state
    if start is None:
        widths = k.shape[-1], v.shape[-1]
        start = initial_state(rule, W0, batch, *widths, refine=how.refine, dtype=dtype)
    if how.exact or isinstance(rule.algorithm, Newton):  # chunks are tiles only: begin one here
        start = dataclasses.replace(start, position=jnp.zeros_like(start.position))
        aligned = segment_ids is None or (segments_at_chunks and state is None)
    else:
        aligned = state is None and (segment_ids is None or segments_at_chunks)
    at = positions(segment_ids, start.position, start.segment, length, chunk)
    write = jnp.ones((batch, length), dtype) if mask is None else mask.astype(dtype)

    origin = dual_start(rule, {name: leaf.astype(dtype) for name, leaf in fast.items()})
    step = functools.partial(chunk_step, rule, how)
    per_head = Tile(0, 0, 0, 0, 0, None, None, None)  # pyright: ignore
    over_heads = jax.vmap(step, (0, 0, per_head))
    over_rows = jax.vmap(over_heads, (None, 0, 0))
    fixed = {name: leaf.astype(dtype) for name, leaf in fixed.items()}

    # Recomputed in the backward pass: on CPU this halves its time and takes a fifth of the memory.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def tile_step(memory: Fast, xs: tuple[Tile, Array | None]):
        tile, reset = xs
        tile = tile._replace(**_cast(tile, dtype))
        if reset is not None:
            memory = _restart(memory, origin, reset)
        if rule.reads_linearly and rule.retention.lag and tile.write.shape[-1] > 1:
            # Memora's lag token: the chunk's first token is a run of its own, behind which the
            # link fires; the rest follow linearly.
            first, rest = _split_first(tile)
            memory, y_first, loss_first = over_rows(fixed, memory, first)
            memory, y_rest, loss_rest = over_rows(fixed, memory, rest)
            y = jnp.concatenate([y_first, y_rest], axis=2)
            return memory, (y, jnp.concatenate([loss_first, loss_rest], axis=2))
        memory, y, loss = over_rows(fixed, memory, tile)
        return memory, (y, loss)

    fire_at = 0 if rule.retention.lag else chunk - 1
    slots = min(chunk, length) if aligned else chunk
    token_streams = {"q": q, "k": k, "v": v, "k_write": k_write, "write": write, "gates": gates}
    first = Fast(start.A, start.S, start.V, start.R, start.L, start.window, start.sweeps)

    def in_chunks(tiles: int):
        """Tiles of a chunk's slots; tokens are moved unless chunk edges are known to be static."""
        size = tiles * slots
        if aligned:
            present = jnp.broadcast_to(jnp.arange(size) < length, (batch, size))
            moved = jax.tree.map(lambda x: _pad(x, size), token_streams)
            resets = None if segment_ids is None else _pad(at.reset, size)
        else:
            placement = place(at, chunk, tiles)
            present = placement.source < length
            source = jnp.minimum(placement.source, length - 1)
            moved = jax.tree.map(lambda x: _take(x, source), token_streams)
            moved["write"] = moved["write"] * present.astype(dtype)
            resets = _take(at.reset, source) & present
        by_tile = present.reshape(batch, tiles, slots)
        never = jnp.zeros((batch, tiles), bool)
        xs = _tiles(
            moved,
            tiles,
            slots,
            fresh=None if aligned else by_tile[:, :, 0],
            fire=by_tile[:, :, fire_at] if fire_at < slots else never,
            reset=None if resets is None else resets.reshape(batch, tiles, slots)[:, :, 0],
        )
        memory, (y, loss) = jax.lax.scan(tile_step, first, xs)
        y, loss = _untile(y), _untile(loss)
        if aligned:
            return memory, y[:, :length], loss[:, :length]
        return memory, _take(y, placement.slot), _take(loss, placement.slot)

    def by_token():
        """Tiles of one token, right wherever chunks begin."""
        xs = _tiles(
            token_streams,
            length,
            1,
            fresh=at.position == 0,
            fire=at.position == fire_at,
            reset=None if segment_ids is None else at.reset,
        )
        memory, (y, loss) = jax.lax.scan(tile_step, first, xs)
        return memory, _untile(y), _untile(loss)

    if aligned:
        memory, y, loss = in_chunks(math.ceil(length / chunk))
    elif chunk == 1 or length == 1 or 8 * length <= chunk:  # shorter than the tiles' overhead
        memory, y, loss = by_token()
    else:
        tiles = math.ceil(length / chunk) + (state is not None)
        if segment_ids is None:
            memory, y, loss = in_chunks(tiles)
        else:
            # Segments that begin at chunk edges need no more tiles than one segment does.
            fits = jnp.max(tiles_needed(at)) <= tiles
            memory, y, loss = jax.lax.cond(
                fits, functools.partial(in_chunks, tiles), jax.checkpoint(by_token)
            )
    return y.astype(q.dtype), _state(memory, at), loss


def _state(memory: Fast, at: Positions) -> State:
    return State(*memory, position=at.end_position, segment=at.end_segment)


def _cast(tile: Tile, dtype) -> dict[str, Array | None]:
    streams = {name: getattr(tile, name) for name in ("q", "k", "v", "k_write")}
    return {name: None if x is None else x.astype(dtype) for name, x in streams.items()}


def _restart(memory: Fast, origin: Weights, reset: Array) -> Fast:
    """A = unlink(W0) and empty buffers in the rows that begin a segment.

    The chunk step renews what else depends on them, since a segment begins a chunk.
    """

    def rows(leaf: Array) -> Array:
        return reset.reshape(-1, *[1] * (leaf.ndim - 1))

    A = {n: jnp.where(rows(leaf), origin[n][None], leaf) for n, leaf in memory.A.items()}
    empty = lambda tree: jax.tree.map(lambda x: jnp.where(rows(x), 0.0, x), tree)  # noqa: E731
    window = memory.window
    if window is not None:
        window = window._replace(weight=empty(window.weight))
    return memory._replace(A=A, S=empty(memory.S), V=empty(memory.V), window=window)


def _pad(x: Array, size: int) -> Array:
    return jnp.pad(x, [(0, 0), (0, size - x.shape[1])] + [(0, 0)] * (x.ndim - 2))


def _take(x: Array, index: Array) -> Array:
    """Gather along time, per row: x [B, T, ...], index [B, S]."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)


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


def _split_first(tile: Tile) -> tuple[Tile, Tile]:
    """The tile's first token, which carries its flags, and the rest."""

    def cut(part: slice) -> dict:
        names = ("q", "k", "v", "k_write", "gates")
        streams = {name: getattr(tile, name) for name in names}
        cut_streams = jax.tree.map(lambda x: x[:, :, part], streams)
        return {**cut_streams, "write": tile.write[:, part]}

    never = jnp.zeros(tile.fire.shape, bool)
    first = Tile(**cut(slice(0, 1)), fresh=tile.fresh, fire=tile.fire)
    rest = Tile(**cut(slice(1, None)), fresh=never, fire=never)
    return first, rest
