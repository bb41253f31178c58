"""The XLA backend: tiles of tokens, each one call of the chunk step, in a loop over tiles."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.backends.base import Alignment, Backend, ScanInputs, ScanResult
from miras.backends.xla.loop import Loop, checkpoint_interval, scan_tiles
from miras.backends.xla.rounding import rounded
from miras.backends.xla.tiling import (
    PreparedArrays,
    Tiles,
    layout_of,
    prepare,
    tile_of,
    tiles_of,
    tiles_of_one_token,
)
from miras.engine.layout import tiles_needed
from miras.engine.state import State
from miras.engine.tile import tile_step
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


class Tiling(NamedTuple):
    """How tiles are gone through.

    Attributes:
        tile: tokens of a tile, a divisor of the chunk; None for the chunk.
        loop: what goes through the tiles; None for `scan_tiles`.
    """

    tile: int | None = None
    loop: Loop | None = None


class Xla(Backend):
    """`jax.lax.scan` over tiles, on any device.

    Args:
        tiling: how tiles are gone through; by default chunks, of which `tile_of` cuts large ones.
    """

    def __init__(self, tiling: Tiling | None = None):
        self.tiling = tiling

    def plan(self, rule, inputs, options, alignment) -> Tiling:
        """The tiling of the backend, or that of the call's rule and shapes."""
        return self.tiling or Tiling(tile_of(rule, options, inputs.q.shape[1]))

    def run(self, rule, inputs, options, alignment, plan: Tiling) -> ScanResult:
        """Outputs, state and loss of all tokens, from `run_tiles`."""
        return run_tiles(rule, inputs, options, alignment, plan)


def run_tiles(
    rule: Rule,
    inputs: ScanInputs,
    options: ScanOptions,
    alignment: Alignment,
    plan: Tiling = Tiling(),
) -> ScanResult:
    """All tokens of a call, tile by tile; arguments are those of `Backend.run`.

    Tokens that are taken one by one go through `scan_tiles`, whatever the plan says.
    """
    prepared, layout = prepare(rule, inputs, options), layout_of(rule, inputs, options, alignment)
    step = rounded(functools.partial(tile_step, rule, options), options.precision)

    def results(tiles: Tiles, loop: Loop) -> tuple[State, Array, Array]:
        state, y, loss = loop(step, prepared.constants, prepared.memory, tiles.tiles, tiles.resets)
        return state, tiles.in_token_order(y), tiles.in_token_order(loss)

    def in_tiles() -> tuple[State, Array, Array]:
        tiles = tiles_of(rule, prepared, options, layout, inputs, plan.tile)
        count = tiles.tiles.write.shape[0]
        parts = options.chunk // (plan.tile or options.chunk)
        interval = checkpoint_interval(options.save_every, count, parts)
        return results(tiles, plan.loop or functools.partial(scan_tiles, interval=interval))

    def one_by_one() -> tuple[State, Array, Array]:
        tiles = tiles_of_one_token(rule, prepared, options, inputs)
        interval = checkpoint_interval(options.save_every, inputs.q.shape[1], options.chunk)
        return results(tiles, functools.partial(scan_tiles, interval=interval))

    if layout.kind == "one_by_one":
        state, y, loss = one_by_one()
    elif layout.kind == "moved_if_they_fit":
        # Segments that begin at chunk edges need no more tiles than one segment does.
        fits = jnp.max(tiles_needed(prepared.at)) <= layout.chunks
        state, y, loss = jax.lax.cond(fits, in_tiles, jax.checkpoint(one_by_one))
    else:
        state, y, loss = in_tiles()
    return ScanResult(y.astype(inputs.q.dtype), _end(inputs, prepared, state), loss)


def _end(inputs: ScanInputs, prepared: PreparedArrays, memory: State) -> State:
    """The state after the call; the one before it, bit for bit, of rows that are all masked."""
    at = prepared.at
    end = memory.replace(position=at.end_position, segment=at.end_segment)
    if inputs.mask is None or inputs.state is None:
        return end
    before = prepared.start.replace(position=inputs.state.position)
    has_tokens = jnp.any(inputs.mask, axis=1)

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(has_tokens.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, end, before.replace(made=None))
