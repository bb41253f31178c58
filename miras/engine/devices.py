"""Devices: inside `jax.shard_map`, an array either differs from device to device or does not."""

from typing import TypeVar

import jax
from jax import lax

from miras.array_typing import Array

Tree = TypeVar("Tree")


def varying_alike(tree: Tree) -> Tree:
    """Casts all leaves to vary over the union of their mesh axes.

    Loops and kernels require equal varying types. The derivative sums gradients over devices.
    """
    axes = frozenset().union(*(_axes(x) for x in jax.tree.leaves(tree)))

    def vary(x: Array) -> Array:
        missing = tuple(sorted(axes - _axes(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, tree) if axes else tree


def varies(x: Array) -> bool:
    """Whether an array is known to differ from device to device."""
    return bool(_axes(x))


def _axes(x: Array) -> frozenset[str]:
    return jax.typeof(x).manual_axis_type.varying  # pyright: ignore[reportAttributeAccessIssue]
