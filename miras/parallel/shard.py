"""`shard_map` around functions of rows and heads, and constraints on activations.

Memories and attention are functions of one row and one head, so devices that split rows and heads
compute them without communication. XLA cannot split a kernel and does not see that a loop over
tokens splits by heads, so `over_mesh` says it: inside of it each device has its own rows and heads
and all of their tokens. Between memories the tokens of a row are split over the axis `seq`; XLA
inserts the exchange of tokens for heads (an all-to-all, as in DeepSpeed-Ulysses, 2309.14509).

The mesh is that of `jax.set_mesh`. Without one, and on a mesh of one device, nothing changes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, PartitionSpec

from miras.array_typing import Array
from miras.runtime.log import log_once

ROWS, HEADS, TIME, KEPT_TIME = "rows", "heads", "time", "kept_time"
# Heads are split over `tensor` first, as the parameters that make them are. What is kept of each
# block for the backward pass is split over `tensor` by its tokens, and gathered in the block.
_AXES = {
    ROWS: ("data", "fsdp"),
    HEADS: ("tensor", "seq"),
    TIME: ("seq",),
    KEPT_TIME: ("seq", "tensor"),
}

R = TypeVar("R")


def automatic_axes() -> dict[str, int]:
    """The axes of the current mesh that XLA may split over, with their sizes."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return {}
    kinds = zip(mesh.axis_names, mesh.axis_types, mesh.axis_sizes, strict=True)
    return {name: size for name, kind, size in kinds if kind == AxisType.Auto}


def over_mesh(
    run: Callable[..., R], args: tuple[Any, ...], axes: Any, out: Any, *, rows: int, heads: int
) -> R:
    """`run(*args)`, in which each device has its own rows and heads.

    Rows or heads that the devices cannot split evenly are computed by all devices alike.

    Args:
        run: a function whose rows and heads do not depend on each other.
        args: of `run`, pytrees of arrays.
        axes: the logical axes of `args`, a prefix of their pytree, whose leaves are
            `PartitionSpec` of `ROWS`, `HEADS` and None.
        out: the logical axes of the result.
        rows: B.
        heads: H, or a common divisor of the numbers of heads where there are several.
    """
    sizes = automatic_axes()
    split = {ROWS: _split(ROWS, rows, sizes), HEADS: _split(HEADS, heads, sizes)}
    if math.prod(sizes.values()) == 1:
        return run(*args)
    place = functools.partial(_place, split)
    is_axes = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return jax.shard_map(
        run,
        in_specs=jax.tree.map(place, axes, is_leaf=is_axes),
        out_specs=jax.tree.map(place, out, is_leaf=is_axes),
        axis_names=set(sizes),
        check_vma=False,  # so that the gradient of W0 is summed once, after all of its uses
    )(*args)


def over_rows(run: Callable[..., R], weights: Any, args: tuple[Any, ...]) -> R:
    """`run(weights, *args)`, in which each device has its own rows and gathers the weights first.

    For a loop over segments of the tokens: XLA would gather split weights in every pass of it. The
    axes `tensor` and `seq` stay with XLA, and with `over_mesh` inside of `run`.

    Args:
        run: a function whose rows do not depend on each other.
        weights: a pytree of arrays without rows.
        args: pytrees of arrays [B, ...]; the result is one as well.
    """
    sizes = automatic_axes()
    rows = jax.tree.leaves(args)[0].shape[0]
    split = _split(ROWS, rows, sizes)
    if not split:
        return run(weights, *args)
    by_row = PartitionSpec(split)
    return jax.shard_map(
        run,
        in_specs=(PartitionSpec(), *(by_row,) * len(args)),
        out_specs=by_row,
        # Kernels inside are not partitioned, so that axes of one device are not left to XLA either.
        axis_names={axis for axis in sizes if axis in split or sizes[axis] == 1},
        check_vma=False,
    )(weights, *args)


def constrain(x: Array, *axes: str | None) -> Array:
    """x, split over the current mesh along its logical axes where the devices divide them."""
    sizes = automatic_axes()
    if math.prod(sizes.values()) == 1:
        return x
    named = zip(x.shape, axes, strict=True)
    spec = [() if name is None else _split(name, size, sizes) for size, name in named]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def _split(name: str, size: int, sizes: dict[str, int]) -> tuple[str, ...]:
    """The mesh axes over which a logical axis is split."""
    axes = tuple(axis for axis in _AXES[name] if sizes.get(axis, 1) > 1)
    if size % math.prod(sizes[axis] for axis in axes) == 0:
        return axes
    if name == KEPT_TIME:
        return _split(TIME, size, sizes)
    log_once(f"{size} {name} are computed whole: {' x '.join(axes)} of the mesh do not divide them")
    return ()


def _place(split: dict[str, tuple[str, ...]], axes: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*(None if name is None else split[name] for name in axes))
