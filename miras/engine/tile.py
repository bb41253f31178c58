"""The tile step: the chunk step on one head's tile, after a segment's restart and a lag token."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.state import State
from miras.engine.step import Tile, chunk_step
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


class Constants(NamedTuple):
    """Weights that stay the same through all tiles of a head: leaves [in, out] or [out], no batch.

    Attributes:
        fixed: weights that only the outer loop trains.
        segment_start: unlink(W0), from which a segment starts.
    """

    fixed: Weights
    segment_start: Weights


def tile_step(
    rule: Rule,
    options: ScanOptions,
    constants: Constants,
    memory: State,
    tile: Tile,
    reset: Array | None,
) -> tuple[State, Array, Array]:
    """Restart the memory where a segment begins, then take the `chunk_step`.

    The step computes in the dtype of `write` and `constants`. The memory enters and leaves in its
    own dtype, which may be narrower, and y leaves in that of the queries, so that it and its
    cotangent take no more space than they do.

    Args:
        rule: the four parts.
        options: `chunk`, `refine` and `exact`.
        constants: of the head.
        memory: of the head, before the tile.
        tile: the tokens, of a chunk or of a part of one.
        reset: scalar bool, whether the tile begins a segment; None says that it does not.
    """
    kept, dtype = memory, tile.q.dtype
    memory, tile = in_step_dtype(memory, tile)
    if reset is not None:
        memory = _restart(memory, constants.segment_start, reset)
    step = functools.partial(chunk_step, rule, options, constants.fixed)
    if rule.reads_linearly and rule.retention.lag and tile.write.shape[0] > 1:
        # Memora's lag token: the chunk's first token is a run of its own, after which the link
        # acts; the rest follow linearly.
        memory, y_first, loss_first = step(memory, _only_first(tile))
        memory, y, loss = step(memory, _but_first(tile))
        others = jnp.arange(loss.shape[0]) > 0
        y = jnp.where(others[:, None], y, y_first)
        loss = jnp.where(others, loss, loss_first)
    else:
        memory, y, loss = step(memory, tile)
    return in_dtype_of(kept, memory), y.astype(dtype), loss


def in_step_dtype(memory: State, tile: Tile) -> tuple[State, Tile]:
    """The memory and the tokens in the dtype of `write`, in which steps are computed."""
    dtype = tile.write.dtype
    tile = tile._replace(
        q=tile.q.astype(dtype),
        k=tile.k.astype(dtype),
        v=tile.v.astype(dtype),
        k_write=None if tile.k_write is None else tile.k_write.astype(dtype),
    )
    return jax.tree.map(lambda x: x.astype(dtype), memory), tile


def in_dtype_of(before: State, memory: State) -> State:
    """The memory in the dtypes that it had before a step."""
    return jax.tree.map(lambda x, old: x.astype(old.dtype), memory, before)


def _restart(memory: State, segment_start: Weights, reset: Array) -> State:
    """A = unlink(W0) and empty buffers.

    The chunk step recomputes what else depends on them, since a segment begins a chunk.
    """
    A = {name: jnp.where(reset, segment_start[name], leaf) for name, leaf in memory.A.items()}
    empty = lambda tree: jax.tree.map(lambda x: jnp.where(reset, 0.0, x), tree)  # noqa: E731
    window = memory.window
    if window is not None:
        window = window._replace(weight=empty(window.weight))
    return memory.replace(
        A=A, S=empty(memory.S), V=empty(memory.V), window=window, carried=empty(memory.carried)
    )


def _only_first(tile: Tile) -> Tile:
    """The first token, with the tile's flags."""
    names = ("q", "k", "v", "k_write", "gates", "write")
    streams = {name: getattr(tile, name) for name in names}
    return tile._replace(**jax.tree.map(lambda x: x[:1], streams))


def _but_first(tile: Tile) -> Tile:
    """The others, with the first one masked: TPU registers need the tile's length unchanged."""
    others = (jnp.arange(tile.write.shape[0]) > 0).astype(tile.write.dtype)
    never = jnp.zeros(tile.chunk_end.shape, bool)
    return tile._replace(write=tile.write * others, chunk_start=never, chunk_end=never)
