"""Batches on a mesh: which rows of a batch a process reads, and the arrays of all devices."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_ROWS = ("data", "fsdp")


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
    """Of batches [..., batch, sequence]: rows over data and fsdp, tokens over seq."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * (dimensions - 2), _ROWS, "seq"))


def to_devices(mesh: Mesh, arrays: Mapping[str, np.ndarray], batch: int) -> dict[str, Any]:
    """The global arrays of which this process has its own rows.

    Args:
        mesh: of `make_mesh`.
        arrays: [..., rows, sequence], the rows of `local_rows`.
        batch: rows of a batch, over all processes.
    """
    place = {row: n for n, row in enumerate(local_rows(mesh, batch))}

    def of(local: np.ndarray) -> jax.Array:
        shape = (*local.shape[:-2], batch, local.shape[-1])

        def piece(index: Any) -> np.ndarray:
            rows = [place[row] for row in range(*index[-2].indices(batch))]
            return local[..., rows, :][..., index[-1]]

        return jax.make_array_from_callback(shape, batch_sharding(mesh, local.ndim), piece)

    return {name: of(local) for name, local in arrays.items()}
