"""Tiling: the tokens of a call laid out as tiles, and what tiles return put back in token order.

A tile is a run of tokens of one chunk. Where chunk edges are known to lie at multiples of C, tiles
are slices of the sequence. Otherwise tokens are moved into tiles of C slots whose edges are chunk
edges (`engine.layout`), or taken one by one.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from miras.array_typing import Array
from miras.backends.base import Alignment, ScanInputs
from miras.engine.averaging import AVERAGE, averages, pad_with_last
from miras.engine.devices import varying_alike
from miras.engine.layout import Placement, Positions, place, positions
from miras.engine.masking import take_tokens
from miras.engine.state import State, initial_state, split_fixed
from miras.engine.step import Tile
from miras.engine.tile import Constants
from miras.engine.trajectory import dual_start
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


class PreparedArrays(NamedTuple):
    """A call's arrays in the dtypes in which they are computed.

    Attributes:
        start: the state to continue from, or the initial state.
        memory: the memories of `start`, which the loop carries.
        constants: of each head.
        streams: q, k, v, k_write, written (the `write` of tiles) and gates by name, [B, T, ...].
        at: where the tokens stand in their chunks.
    """

    start: State
    memory: State
    constants: Constants
    streams: dict[str, Any]
    at: Positions


def prepare(rule: Rule, inputs: ScanInputs, options: ScanOptions) -> PreparedArrays:
    """The arrays that every layout of a call's tokens starts from."""
    batch, length = inputs.q.shape[:2]
    dtype = computed_in(inputs)
    fast, fixed = split_fixed(rule, inputs.W0)
    start = inputs.state
    if start is None:
        widths = inputs.k.shape[-1], inputs.v.shape[-1]
        kept = {"refine": options.refine, "dtype": dtype, "terms": inputs.terms}
        start = initial_state(rule, inputs.W0, batch, *widths, **kept)
    start = _cast(start, options.precision.kept(dtype))
    if is_online(rule, options):  # chunks are tiles only: one begins here
        start = start.replace(position=jnp.zeros_like(start.position))
    at = positions(
        inputs.segment_ids, start.position, start.segment, length, options.chunk, inputs.mask
    )
    mask = inputs.mask
    write = jnp.ones((batch, length), dtype) if mask is None else mask.astype(dtype)
    gates = dict(inputs.gates or {})
    if inputs.average is not None:
        gates[AVERAGE] = averages(inputs.average.astype(dtype), at, write, inputs.q.shape[2])
    segment_start = dual_start(rule, {name: leaf.astype(dtype) for name, leaf in fast.items()})
    constants = Constants({name: leaf.astype(dtype) for name, leaf in fixed.items()}, segment_start)
    streams = {name: getattr(inputs, name) for name in ("q", "k", "v", "k_write")}
    streams |= {"written": write, "gates": gates}
    return PreparedArrays(start, *varying_alike((start.of_heads(), constants, streams, at)))


def computed_in(inputs: ScanInputs) -> DTypeLike:
    """The dtype of the step: float32, or float64 for float64 inputs."""
    return jnp.promote_types(jnp.float32, inputs.q.dtype)


def is_online(rule: Rule, options: ScanOptions) -> bool:
    """Whether the chunk is a tile size only, so that chunks are counted from each call's start."""
    return options.exact or rule.algorithm.online


class TileLayout(NamedTuple):
    """How a call's tokens become tiles, known from its shapes.

    Attributes:
        kind: "aligned", slices of the sequence; "moved", tokens moved to their chunk's tile;
            "moved_if_they_fit", the same, or one by one where segments need more tiles;
            "one_by_one", tiles of one token.
        chunks: chunks that the tiles hold; 0 for "one_by_one".
    """

    kind: Literal["aligned", "moved", "moved_if_they_fit", "one_by_one"]
    chunks: int


def layout_of(
    rule: Rule, inputs: ScanInputs, options: ScanOptions, alignment: Alignment
) -> TileLayout:
    """The layout of a call."""
    length, chunk = inputs.q.shape[1], options.chunk
    known_edge = is_online(rule, options) or inputs.state is None or alignment.at_chunk_edge
    at_edge = inputs.state is None or alignment.at_chunk_edge
    no_cut = inputs.segment_ids is None or (alignment.segments_at_chunks and at_edge)
    # Online rules count their tiles from the call's start, not from the segment's.
    no_cut |= alignment.segments_at_edges and (at_edge or not is_online(rule, options))
    if known_edge and no_cut and inputs.mask is None:  # a mask gives each row edges of its own
        return TileLayout("aligned", math.ceil(length / chunk))
    if chunk == 1 or length == 1 or 8 * length <= chunk:  # fewer tokens than tiles are worth
        return TileLayout("one_by_one", 0)
    chunks = math.ceil(length / chunk) + (inputs.state is not None)
    return TileLayout("moved" if no_cut else "moved_if_they_fit", chunks)


# Tokens of a tile at most in chunks of more than twice as many: the coefficients of C tokens are
# [C, C], formed from products of such matrices. Chosen by `python -m benchmarks.tnt`.
MOST = 64


def tile_of(rule: Rule, options: ScanOptions, length: int) -> int | None:
    """The tokens of a tile where chunks are better cut in several; None for whole chunks.

    Args:
        rule: the four parts.
        options: of the call.
        length: T.
    """
    chunk = options.chunk
    if is_online(rule, options) or min(chunk, length) <= 2 * MOST:
        return None
    divisor = max(size for size in range(1, MOST + 1) if chunk % size == 0)
    return divisor if divisor >= MOST // 4 else None


class Tiles(NamedTuple):
    """What a loop over tiles goes through, and how to put its results back.

    Attributes:
        tiles: leaves [N, B, (H,) C, ...].
        resets: [N, B], whether a tile begins a segment; None where none does.
        placement: where tokens have been moved; None where tiles are slices.
        length: T.
    """

    tiles: Tile
    resets: Array | None
    placement: Placement | None
    length: int

    def in_token_order(self, x: Array) -> Array:
        """[N, B, H, C, ...] as [B, T, H, ...]."""
        x = jnp.moveaxis(x, 2, 3)
        x = jnp.moveaxis(x, 0, 1)
        x = x.reshape(x.shape[0], -1, *x.shape[3:])
        if self.placement is not None:
            return take_tokens(x, self.placement.slot)
        return x[:, : self.length]


def tiles_of(
    rule: Rule,
    prepared: PreparedArrays,
    options: ScanOptions,
    layout: TileLayout,
    inputs: ScanInputs,
    tile: int | None = None,
) -> Tiles:
    """The tiles of a call whose layout is "aligned" or "moved".

    Args:
        rule: the four parts.
        prepared: the prepared arrays.
        options: `chunk` counts.
        layout: with `chunks` of them.
        inputs: the arrays of the call.
        tile: tokens of a tile, a divisor of the chunk; the chunk if not given.
    """
    batch, length = inputs.q.shape[:2]
    chunk, chunks, at = options.chunk, layout.chunks, prepared.at
    aligned = layout.kind == "aligned"
    slots = tile or (min(chunk, length) if aligned else chunk)
    parts = max(chunk // slots, 1)  # tiles of a chunk
    count = math.ceil(length / slots) if aligned else parts * chunks
    size, part = count * slots, jnp.arange(count) % parts
    placement = None
    if aligned:
        present = jnp.broadcast_to(jnp.arange(size) < length, (batch, size))
        moved = jax.tree.map(lambda x: _pad(x, size), prepared.streams)
        # Padded with the last value: 0 is outside the range of some gates.
        moved["gates"] = jax.tree.map(lambda x: pad_with_last(x, size), prepared.streams["gates"])
        resets = None if inputs.segment_ids is None else _pad(at.reset, size)
    else:
        placement = place(at, chunk, chunks)
        present = placement.source < length
        source = jnp.minimum(placement.source, length - 1)
        moved = jax.tree.map(lambda x: take_tokens(x, source), prepared.streams)
        moved["written"] = moved["written"] * present.astype(moved["written"].dtype)
        resets = take_tokens(at.reset, source) & present
    by_tile = present.reshape(batch, count, slots)
    begins_chunks = aligned and (parts == 1 or count == 1)  # each tile does
    end = action_position(rule, chunk)
    chunk_end = (part == end // slots) & by_tile[:, :, end % slots]
    begins = None if resets is None else resets.reshape(batch, count, slots)[:, :, 0]
    stacked, resets = _stack(
        moved,
        count,
        slots,
        chunk_start=None if begins_chunks else (part == 0) & by_tile[:, :, 0],
        chunk_end=chunk_end if end < parts * slots else jnp.zeros_like(chunk_end),
        reset=None if begins is None else begins & (part == 0),
    )
    return Tiles(stacked, resets, placement, length)


def tiles_of_one_token(
    rule: Rule, prepared: PreparedArrays, options: ScanOptions, inputs: ScanInputs
) -> Tiles:
    """Tiles of one token, right wherever chunks begin."""
    at, length = prepared.at, inputs.q.shape[1]
    begins, ends = at.position == 0, at.position == action_position(rule, options.chunk)
    if inputs.mask is not None:
        begins, ends = begins & inputs.mask, ends & inputs.mask
    stacked, resets = _stack(
        prepared.streams,
        length,
        1,
        chunk_start=begins,
        chunk_end=ends,
        reset=None if inputs.segment_ids is None else at.reset,
    )
    return Tiles(stacked, resets, None, length)


def operand_shapes(
    rule: Rule,
    inputs: ScanInputs,
    options: ScanOptions,
    alignment: Alignment,
    tile: int | None = None,
) -> tuple[Constants, State, Tile, Array | None]:
    """The shapes of what a loop over tiles is called with, where tokens do not go one by one.

    A kernel is planned from these, before anything is computed.
    """
    layout = layout_of(rule, inputs, options, alignment)

    def operands(inputs: ScanInputs):
        prepared = prepare(rule, inputs, options)
        tiles = tiles_of(rule, prepared, options, layout, inputs, tile)
        return prepared.constants, prepared.memory, tiles.tiles, tiles.resets

    return jax.eval_shape(operands, inputs)


def action_position(rule: Rule, chunk: int) -> int:
    """The position after which the per-chunk actions (link, transform, prox) are applied."""
    return 0 if rule.retention.lag else chunk - 1


def _cast(state: State, dtype: DTypeLike) -> State:
    """The state with its floating-point leaves in a dtype."""
    is_number = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: x.astype(dtype) if is_number(x) else x, state)


def _pad(x: Array, size: int) -> Array:
    return jnp.pad(x, [(0, 0), (0, size - x.shape[1])] + [(0, 0)] * (x.ndim - 2))


def _stack(
    streams: dict[str, Any],
    count: int,
    size: int,
    chunk_start: Array | None,
    chunk_end: Array,
    reset: Array | None,
) -> tuple[Tile, Array | None]:
    """Token streams [B, N * C, (H, ...)] as a stack of tiles [N, B, (H,) C, ...]."""

    def tiled(x: Array) -> Array:
        x = x.reshape(x.shape[0], count, size, *x.shape[2:])
        return jnp.moveaxis(x, 0, 1)

    def by_head(x: Array) -> Array:
        return jnp.moveaxis(tiled(x), 3, 2)

    tile = Tile(
        q=by_head(streams["q"]),
        k=by_head(streams["k"]),
        v=by_head(streams["v"]),
        k_write=None if streams["k_write"] is None else by_head(streams["k_write"]),
        gates={name: by_head(x) for name, x in streams["gates"].items()},
        write=tiled(streams["written"]),
        chunk_start=None if chunk_start is None else chunk_start.T,
        chunk_end=chunk_end.T,
    )
    return tile, None if reset is None else reset.T
