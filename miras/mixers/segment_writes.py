"""Writes of a call's segments, by the base rule: one after another, or each from the start."""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.backends.base import Alignment
from miras.engine.state import State
from miras.layers.fast_weights import FastWeights
from miras.layers.keys import Associations
from miras.mixers.segments import Segments

T = TypeVar("T")


class Written(NamedTuple):
    """What the memories did over the tiles of a call.

    Attributes:
        y: reads of the current memory, [B, N, width, H, Dv].
        loss: inner loss, [B, N, width, H].
        ends: dual states after each tile, leaves [B, N, H, ...].
        last: the state after the row's last token.
    """

    y: Array
    loss: Array
    ends: Weights
    last: State


class SegmentTiles(NamedTuple):
    """Tokens in tiles, [B, N, width, ...]."""

    streams: Associations
    gates: dict[str, Array]
    present: Array | None


class Begin(NamedTuple):
    """Where the memories of a call begin.

    Attributes:
        origin: the initial state of B rows.
        state: the state before the first tile.
        new: the state is the initial one.
        sliced: tiles begin where chunks do.
    """

    origin: State
    state: State
    new: bool
    sliced: bool

    @property
    def alignment(self) -> Alignment:
        """What is known of chunk edges."""
        return Alignment(self.sliced, self.sliced)


def write_apart(
    fast: FastWeights, tiles: SegmentTiles, segments: Segments, begin: Begin
) -> Written:
    """Each segment starts from the initial memory: tiles are rows of the batch."""
    batch, count = segments.resets.shape

    def rows(x: Array) -> Array:
        return x.reshape(batch * count, *x.shape[2:])

    def of_tiles(x: Array) -> Array:
        return x.reshape(batch, count, *x.shape[1:])

    state = None
    if not begin.new:

        def start(origin: Array, first: Array) -> Array:
            every = jnp.repeat(origin[:, None], count, axis=1)
            return rows(every.at[:, 0].set(first))

        state = jax.tree.map(start, begin.origin, begin.state)
    found = _run(fast, jax.tree.map(rows, tiles), state, begin.alignment)
    y, state, loss = jax.tree.map(of_tiles, found)
    return Written(y, loss, state.A, at_tile(state, segments.last))


def write_in_order(
    fast: FastWeights, tiles: SegmentTiles, segments: Segments, begin: Begin
) -> Written:
    """A segment starts where the one before ended; a document from the initial memory."""
    if segments.count == 1:
        one = jax.tree.map(lambda z: z[:, 0], tiles)
        y, last, loss = _run(fast, one, None if begin.new else begin.state, begin.alignment)
        return Written(y[:, None], loss[:, None], jax.tree.map(lambda z: z[:, None], last.A), last)

    def step(state: State, tile: tuple[SegmentTiles, Array]):
        tokens, reset = tile
        state = choose(reset, begin.origin, state)
        y, state, loss = _run(fast, tokens, state, begin.alignment)
        return state, (y, state.A, loss)

    by_tile = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), (tiles, segments.resets))
    last, found = jax.lax.scan(step, begin.state, by_tile)
    y, ends, loss = jax.tree.map(lambda z: jnp.moveaxis(z, 0, 1), found)
    return Written(y, loss, ends, last)


def _run(
    fast: FastWeights, tokens: SegmentTiles, state: State | None, alignment: Alignment
) -> tuple[Array, State, Array]:
    """The base rule on rows of tokens, [B, width, ...]."""
    y, after, loss = fast.write_and_read(
        tokens.streams, tokens.gates, mask=tokens.present, state=state, alignment=alignment
    )
    return y, after, loss


def choose(condition: Array, new: T, old: T) -> T:
    """The new leaves in rows where the condition [B] holds, else the old ones."""

    def of(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(-1, *[1] * (b.ndim - 1)), a.astype(b.dtype), b)

    return jax.tree.map(of, new, old)


def at_tile(tree: Any, tile: Array) -> Any:
    """Leaves [B, N, ...] at a tile of each row, [B]."""
    pick = jax.vmap(functools.partial(jnp.take, axis=0))
    return jax.tree.map(lambda x: pick(x, tile), tree)
