"""The loop over tiles: a `lax.scan`, and the checkpoint interval of its backward pass.

The backward pass starts from saved states and recomputes those between them. By default every
tile's state is saved. One state every n tiles takes N / n + n states for N tiles instead of N,
which is least at n = sqrt(N) (Chen et al., arXiv 1604.06174, section 4).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.saved import states
from miras.engine.state import State
from miras.engine.step import Tile
from miras.rule.options import SaveEvery

# (step, constants, state, tiles, resets) -> (state, y, loss); tiles [N, B, (H,) C, ...].
Loop = Callable[..., tuple[State, Array, Array]]


def checkpoint_interval(save_every: SaveEvery, tiles: int, parts: int) -> int:
    """The interval of `scan_tiles`: one state is saved every so many tiles.

    Args:
        save_every: see `miras.scan`.
        tiles: N, of the whole loop.
        parts: tiles of a chunk.
    """
    if save_every == "sqrt":
        root = math.ceil(math.sqrt(tiles))
        # Whole groups need no copy of the tokens that pads them: about the root, a divisor is best.
        near = [n for n in range(max(1, root // 2), 2 * root + 1) if tiles % n == 0]
        return min(near, key=lambda n: n + tiles // n, default=root)
    return min(tiles, (save_every or 0) * parts) or 1


def scan_tiles(
    step, constants, memory: State, tiles: Tile, resets: Array | None, *, interval: int = 1
) -> tuple[State, Array, Array]:
    """Go through the tiles with `lax.scan`, all rows and heads at once.

    Args:
        step: `tile_step` of a rule.
        constants: of each head.
        memory: of each row and head, before the first tile.
        tiles: leaves [N, B, (H,) C, ...].
        resets: [N, B], or None.
        interval: save one state every `interval` tiles for the backward pass.
    """
    each = Tile(0, 0, 0, 0, 0, None, None, None)  # pyright: ignore
    over_heads = jax.vmap(step, (0, 0, each, None))
    over_rows = jax.vmap(over_heads, (None, 0, 0, 0))

    # Recomputed in the backward pass: on CPU this halves its time and takes a fifth of the memory.
    # Keeping the products (`dots_saveable`) is no faster, keeping all of 4 tiles at a time slower.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def tile(memory: State, xs: tuple[Tile, Array | None]):
        memory, y, loss = over_rows(constants, memory, *xs)
        return memory, (y, loss)

    if interval == 1:
        memory, (y, loss) = jax.lax.scan(_from_saved(tile), memory, (tiles, resets))
        return memory, y, loss

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def several(memory: State, xs: tuple[Tile, Array | None]):
        return jax.lax.scan(tile, memory, xs)

    count = tiles.write.shape[0]
    memory, read = jax.lax.scan(_from_saved(several), memory, _grouped((tiles, resets), interval))
    y, loss = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], read)
    return memory, y, loss


def _from_saved(body):
    """A body whose backward pass starts from the memory at its start, which may be kept."""
    return lambda memory, xs: body(states(memory), xs)


def _grouped(xs: tuple[Tile, Array | None], group: int) -> tuple[Tile, Array | None]:
    """Tiles [N, ...] as groups [N / n, n, ...], padded with tiles that do nothing."""
    tiles, _ = xs
    count = tiles.write.shape[0]
    missing = -count % group
    if (
        missing and tiles.chunk_start is None
    ):  # what always begins a chunk would do so in padding too
        xs = tiles._replace(chunk_start=jnp.ones_like(tiles.chunk_end)), xs[1]

    def grouped(x: Array, mode: str = "constant") -> Array:
        if missing:
            x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), mode=mode)
        return x.reshape(-1, group, *x.shape[1:])

    gates = {name: grouped(gate, "edge") for name, gate in tiles.gates.items()}
    tiles, resets = jax.tree.map(grouped, xs)
    return tiles._replace(gates=gates), resets
