"""Which mesh axis splits which dimension of a parameter: one table from logical names to axes.

`tensor` splits the dimensions that the table gives it. `fsdp` splits matrices: the dimension
`embed`, or else the largest one that it divides. Vectors such as norms and biases stay whole over
`fsdp`, since gathering them costs more than keeping them.
"""

from collections.abc import Mapping

from jax.sharding import PartitionSpec

from miras.config import require

TENSOR, FSDP = "tensor", "fsdp"
TABLE = {"vocab": TENSOR, "heads": TENSOR, "mlp": TENSOR, "embed": FSDP}
STACKED = "layers"  # the loop over layers takes one layer at a time

Names = tuple[str | None, ...]


def parameter_spec(
    shape: tuple[int, ...], names: Names, sizes: Mapping[str, int], *, matrix: bool
) -> PartitionSpec:
    """The mesh axis of each dimension of a parameter; dimensions that an axis divides are split.

    Args:
        shape: of the parameter.
        names: the logical name of each dimension, or None.
        sizes: of the mesh axes.
        matrix: whether a layer's and head's part of it is a matrix.
    """
    split: list[str | None] = [None] * len(shape)
    of_tensor = [n for n, name in enumerate(names) if TABLE.get(name or "") == TENSOR]
    _give(split, shape, sizes, TENSOR, of_tensor)
    if matrix:
        free = [n for n, name in enumerate(names) if name != STACKED]
        preferred = [n for n in free if TABLE.get(names[n] or "") == FSDP]
        largest = sorted(free, key=lambda n: -shape[n])
        _give(split, shape, sizes, FSDP, [*preferred, *largest])
    return PartitionSpec(*split)


def _give(
    split: list[str | None],
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    axis: str,
    dimensions: list[int],
) -> None:
    """Let an axis split the first of these dimensions that it divides and nothing else splits."""
    for n in dimensions:
        if sizes[axis] > 1 and split[n] is None and shape[n] % sizes[axis] == 0:
            split[n] = axis
            return


def check_divides(name: str, size: int, axes: str, parts: int, most: int | None = None) -> None:
    """Raise `ConfigError` unless the devices of mesh axes split `size` things evenly.

    Args:
        name: what the user calls them, as in "model.heads".
        size: their number.
        axes: what the user calls the axes, as in "mesh.tensor".
        parts: the number of devices along the axes.
        most: lists legal numbers of devices up to this; `size` if not given.
    """
    legal = [str(n) for n in range(1, min(size, most or size) + 1) if size % n == 0]
    shown = legal[0] if len(legal) == 1 else f"{', '.join(legal[:-1])} or {legal[-1]}"
    require(
        size % parts == 0,
        f"{name}={size} cannot be split over {axes}={parts}: use {shown} devices.",
    )
