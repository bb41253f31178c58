"""Meshes of devices: their config, the sharding of arrays, and `shard_map` around memories."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.parallel.config import MeshConfig
    from miras.parallel.mesh import make_mesh

__all__ = ["MeshConfig", "make_mesh"]

lazy.package(__name__, {".config": ("MeshConfig",), ".mesh": ("make_mesh",)})
