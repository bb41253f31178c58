"""`make_mesh`: the devices of all processes as an array with the axes of a `MeshConfig`."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from miras.parallel.config import AXES, MeshConfig


def make_mesh(config: MeshConfig | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes data, fsdp, seq and tensor.

    Neighbours along `tensor` are closest to each other in the network of the devices, then those
    along `seq`, `fsdp` and `data`. With several slices, `data` is the axis between them.

    Args:
        config: the sizes of the axes; `fsdp` over all devices if not given.
        devices: all devices if not given, which are those of all processes.

    Raises:
        ConfigError: the axes do not fit the number of devices.
    """
    config = config or MeshConfig()
    devices = jax.devices() if devices is None else list(devices)
    sizes = config.sizes(len(devices))
    shape = tuple(sizes.values())
    if config.slices > 1:
        within = (shape[0] // config.slices, *shape[1:])
        grid = mesh_utils.create_hybrid_device_mesh(
            within, (config.slices, 1, 1, 1), devices, process_is_granule=not _has_slices(devices)
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _has_slices(devices: Sequence[Any]) -> bool:
    return all(getattr(device, "slice_index", None) is not None for device in devices)
