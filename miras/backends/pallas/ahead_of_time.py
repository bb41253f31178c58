"""Ahead-of-time compilation for TPUs on a machine that has none, by libtpu's compiler."""

import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from miras.config import unknown

Chip = Literal["v5e", "v5p", "v6e"]

TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}


def compile_ahead(function: Callable[..., Any], *shapes: Any, chip: Chip = "v5e") -> Any:
    """Compile a function for one chip of a kind, which this machine need not have.

    Needs the `libtpu` wheel (`pip install 'miras-jax[tpu]'`), on Linux.

    Args:
        function: of arrays; rules that it runs by `backend="pallas"` are compiled as kernels.
        *shapes: its arguments, or `jax.ShapeDtypeStruct`s of them.
        chip: "v5e", "v5p" or "v6e".

    Returns:
        A `jax.stages.Compiled`, which says what it costs and cannot be run here.
    """
    mesh = _mesh(chip)
    with jax.set_mesh(mesh):
        traced = jax.jit(function).trace(*shapes)
        return traced.lower(lowering_platforms=("tpu",)).compile()


@functools.cache
def _mesh(chip: str) -> Mesh:
    if chip not in TOPOLOGIES:
        raise unknown("chip", chip, TOPOLOGIES)
    return Mesh(np.array(topology_devices(TOPOLOGIES[chip])[:1]), ("chip",))


def topology_devices(topology: str, slices: int = 1) -> list[Any]:
    """The devices of a TPU topology, such as "v5e:4x4", which this machine need not have.

    Args:
        topology: the generation and the shape of a slice, as libtpu names them.
        slices: the number of slices.
    """
    # Do not look for chips and hosts, of which there are none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    options = {"num_slices": slices} if slices > 1 else {}
    return list(topologies.get_topology_desc(topology, platform="tpu", **options).devices)
