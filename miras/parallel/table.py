"""Tables with one row per token of the vocabulary on a mesh: the embedding and the output head.

Every device has its own rows of a batch (axes data and fsdp), its own part of each row (seq) and
its own part of the vocabulary (tensor). It reads whole vectors of the table, and receives of the
summed gradient the part of each vector that it keeps.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from miras.array_typing import Array


class TableSplit(NamedTuple):
    """The mesh axes over which rows, the tokens of a row, vocabulary and width are split."""

    rows: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ()
    width: tuple[str, ...] = ()

    @property
    def owners(self) -> tuple[str, ...]:
        """The axes along which devices have other tokens."""
        return (*self.rows, *self.time)


def split_table(
    batch: tuple[int, ...], table: tuple[int, ...], sizes: dict[str, int]
) -> TableSplit:
    """The axes that divide each dimension; one that does not divide it is not split.

    Args:
        batch: shape of the tokens, [B, T].
        table: shape of the table, [V, width].
        sizes: of the mesh axes that may split.
    """

    def dividing(size: int, *names: str) -> tuple[str, ...]:
        names = tuple(name for name in names if sizes.get(name, 1) > 1)
        return names if size % math.prod(sizes[name] for name in names) == 0 else ()

    rows = dividing(batch[0], "data", "fsdp")
    # The gradient of the table is scattered as the table is stored, if fsdp has partial sums of it.
    width = dividing(table[1], "fsdp") if "fsdp" in rows else ()
    return TableSplit(rows, dividing(batch[1], "seq"), dividing(table[0], "tensor"), width)


def sum_over_tokens(gradient: Array, split: TableSplit, dtype: DTypeLike = jnp.float32) -> Array:
    """A table's gradient [V, width], summed over the devices that have other tokens.

    Args:
        gradient: of this device's tokens.
        split: of the table; the result is split over `split.width`.
        dtype: in which a float32 gradient is sent and summed.
    """
    if not split.owners:
        return gradient
    own = gradient.dtype
    if own == jnp.float32:
        gradient = gradient.astype(dtype)
    if split.width:
        gradient = jax.lax.psum_scatter(gradient, split.width, scatter_dimension=1, tiled=True)
    rest = tuple(axis for axis in split.owners if axis not in split.width)
    return sum_over(gradient, rest).astype(own)


def sum_over(x: Array, axes: tuple[str, ...]) -> Array:
    """x summed over the devices along mesh axes."""
    return jax.lax.psum(x, axes) if axes else x
