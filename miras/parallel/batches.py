"""Batches on a mesh: which rows of a batch a process reads, and the arrays of all devices."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_ROWS = ("data", "fsdp")


class RowField(NamedTuple):
    """An array of each row of a batch.

    Attributes:
        shape: of one row; () for a scalar.
        dtype: a NumPy dtype or its name.
        over_time: whether its last axis is that of the tokens, which devices may split.
    """

    shape: tuple[int, ...]
    dtype: Any
    over_time: bool = False


Layout = Mapping[str, RowField]
"""The arrays of a row by name; every process and every row of a run has the same."""


def local_rows(mesh: Mesh, batch: int) -> list[int]:
    """The rows of a batch, in ascending order, that the devices of this process hold.

    Args:
        mesh: of `make_mesh`.
        batch: rows of a batch, over all processes; a multiple of data * fsdp.
    """
    sharding = NamedSharding(mesh, PartitionSpec(_ROWS))
    rows: set[int] = set()
    for index in sharding.addressable_devices_indices_map((batch,)).values():
        assert index is not None
        rows.update(range(*index[0].indices(batch)))
    return sorted(rows)


def batch_sharding(mesh: Mesh, dimensions: int = 2) -> NamedSharding:
    """Of tokens [..., batch, sequence]: rows over data and fsdp, tokens over seq."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * (dimensions - 2), _ROWS, "seq"))


def field_sharding(mesh: Mesh, field: RowField, before: int = 0) -> NamedSharding:
    """Of arrays [..., batch, *field.shape], with `before` axes before that of the rows."""
    own: list[str | None] = [None] * len(field.shape)
    if field.over_time:
        own[-1] = "seq"
    return NamedSharding(mesh, PartitionSpec(*(None,) * before, _ROWS, *own))


def to_devices(
    mesh: Mesh, arrays: Mapping[str, np.ndarray], batch: int, layout: Layout | None = None
) -> dict[str, Any]:
    """The global arrays of which this process has its own rows.

    Args:
        mesh: of `make_mesh`.
        arrays: [..., rows, *field.shape] by name, the rows of `local_rows`.
        batch: rows of a batch, over all processes.
        layout: of a row; arrays [..., rows, sequence] of tokens by default.
    """
    place = {row: n for n, row in enumerate(local_rows(mesh, batch))}

    def of(local: np.ndarray, field: RowField) -> jax.Array:
        before = local.ndim - 1 - len(field.shape)
        shape = (*local.shape[:before], batch, *field.shape)

        def piece(index: Any) -> np.ndarray:
            rows = [place[row] for row in range(*index[before].indices(batch))]
            return np.take(local, rows, axis=before)[(..., *index[before + 1 :])]

        return jax.make_array_from_callback(shape, field_sharding(mesh, field, before), piece)

    if layout is None:
        layout = {name: RowField(x.shape[-1:], x.dtype, True) for name, x in arrays.items()}
    return {name: of(local, layout[name]) for name, local in arrays.items()}
