"""The walk of the XLA backend: a `lax.scan` over tiles, and which memories it keeps on its way.

The backward pass starts from kept memories and steps again to what lies between them. One memory a
tile is kept by default; one a group of n, the rest being found again, takes N / n + n of them for N
tiles instead of N, which is least at n = sqrt(N) (Chen et al., arXiv 1604.06174, section 4).
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.config import require
from miras.engine.step import Fast, Tile

# (step, constants, memory, tiles, resets) -> (memory, y, loss); tiles [N, B, (H,) C, ...].
Loop = Callable[..., tuple[Fast, Array, Array]]

# Chunks from one memory that is kept for the backward pass to the next; None: as is fastest.
SaveEvery = int | Literal["sqrt"] | None


def check_save_every(save_every: object, name: str) -> None:
    """Raise `ConfigError` for what is no `SaveEvery`; `name` is what the user calls it."""
    chunks = isinstance(save_every, int) and not isinstance(save_every, bool) and save_every >= 1
    require(
        chunks or save_every in (None, "sqrt"),
        f"{name}={save_every!r} must be a number of chunks of at least 1, 'sqrt' or None.",
    )


def group_of(save_every: SaveEvery, tiles: int, parts: int) -> int:
    """Tiles from one memory that is kept to the next.

    Args:
        save_every: see `miras.scan`.
        tiles: N, of the whole walk.
        parts: tiles of a chunk.
    """
    if save_every == "sqrt":
        root = math.ceil(math.sqrt(tiles))
        # Whole groups need no copy of the tokens that pads them: about the root, a divisor is best.
        near = [n for n in range(max(1, root // 2), 2 * root + 1) if tiles % n == 0]
        return min(near, key=lambda n: n + tiles // n, default=root)
    return min(tiles, (save_every or 0) * parts) or 1


def in_order(
    step, constants, memory: Fast, tiles: Tile, resets: Array | None, *, group: int = 1
) -> tuple[Fast, Array, Array]:
    """Go through the tiles with `lax.scan`, all rows and heads at once.

    Args:
        step: `tile_step` of a rule.
        constants: of each head.
        memory: of each row and head, before the first tile.
        tiles: leaves [N, B, (H,) C, ...].
        resets: [N, B], or None.
        group: tiles from one memory that is kept for the backward pass to the next.
    """
    each = Tile(0, 0, 0, 0, 0, None, None, None)  # pyright: ignore
    over_heads = jax.vmap(step, (0, 0, each, None))
    over_rows = jax.vmap(over_heads, (None, 0, 0, 0))

    # Recomputed in the backward pass: on CPU this halves its time and takes a fifth of the memory.
    # Keeping the products (`dots_saveable`) is no faster, keeping all of 4 tiles at a time slower.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def tile(memory: Fast, xs: tuple[Tile, Array | None]):
        memory, y, loss = over_rows(constants, memory, *xs)
        return memory, (y, loss)

    if group == 1:
        memory, (y, loss) = jax.lax.scan(tile, memory, (tiles, resets))
        return memory, y, loss

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def several(memory: Fast, xs: tuple[Tile, Array | None]):
        return jax.lax.scan(tile, memory, xs)

    count = tiles.write.shape[0]
    memory, read = jax.lax.scan(several, memory, _grouped((tiles, resets), group))
    y, loss = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], read)
    return memory, y, loss


def _grouped(xs: tuple[Tile, Array | None], group: int) -> tuple[Tile, Array | None]:
    """Tiles [N, ...] as groups [N / n, n, ...], behind the last ones that do nothing."""
    tiles, _ = xs
    count = tiles.write.shape[0]
    missing = -count % group
    if missing and tiles.fresh is None:  # what always begins a chunk would do so in padding too
        xs = tiles._replace(fresh=jnp.ones_like(tiles.fire)), xs[1]

    def grouped(x: Array) -> Array:
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, group, *x.shape[1:])

    return jax.tree.map(grouped, xs)
