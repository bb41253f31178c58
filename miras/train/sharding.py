"""The training state on a mesh: which device holds which part of each array, and what does not fit.

Parameters are split by `miras.parallel.rules`; an optimiser's array that belongs to a parameter and
has its shape is split as the parameter is.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from miras.config import require
from miras.mixers import MixerConfig
from miras.models import LanguageModelConfig
from miras.parallel import MeshConfig
from miras.parallel.rules import check_divides, parameter_spec
from miras.runtime.log import log
from miras.train.config import RunConfig
from miras.train.state import Params, TrainState

LARGE = 10_000_000  # parameters, from which too many replicated bytes are an error


def check_fits(config: RunConfig, sizes: Mapping[str, int]) -> None:
    """Check that a mesh divides the rows, tokens and heads of a run.

    Args:
        config: the run.
        sizes: of the axes of the mesh, as `Mesh.shape` or `MeshConfig.sizes` gives them.

    Raises:
        ConfigError: it does not; the message names the sizes that do.
    """
    data = config.data
    rows = sizes["data"] * sizes["fsdp"]
    check_divides("data.batch", data.batch, "mesh.data x mesh.fsdp", rows)
    check_divides("data.sequence", data.sequence, "mesh.seq", sizes["seq"], most=256)
    _check_heads(config.model, sizes["tensor"], sizes["seq"])


def _check_heads(model: LanguageModelConfig, tensor: int, seq: int) -> None:
    axes = "mesh.tensor" if seq == 1 else "mesh.tensor x mesh.seq"
    for letter in dict.fromkeys(model.letters):
        block = model.block(letter)
        where = "model" if block.heads is None else f"model.blocks.{letter}"
        for mixer, name, heads in _mixers(block, where, model.width, block.heads or model.heads):
            check_divides(f"{name}.heads", heads, axes, tensor * seq)
            grouped = mixer.mixer.grouped(mixer)
            if grouped is not None:
                check_divides(f"{name}.kv_heads", grouped, axes, tensor * seq)


def _mixers(
    config: MixerConfig, where: str, width: int, heads: int
) -> Iterator[tuple[MixerConfig, str, int]]:
    """A mixer and those inside of it, with what the user calls them and their heads."""
    yield config, where, heads
    for held in config.mixer.holds(config, width, heads):
        yield from _mixers(held.config, f"{where}.{held.path}", held.width, held.heads)


def state_shardings(mesh: Mesh, axes: Params, state: TrainState) -> TrainState:
    """The sharding of each array of a training state.

    Args:
        mesh: of `miras.parallel.make_mesh`.
        axes: the logical axes of the parameters, see `optimizer.axis_names`.
        state: of shapes, see `jax.eval_shape`.
    """
    sizes = mesh.shape
    specs = jax.tree.map(
        lambda names, x: parameter_spec(x.shape, names.names, sizes, matrix=names.decays),
        axes,
        state.params,
    )
    known = {
        _keys(path): (leaf.shape, spec)
        for (path, leaf), spec in zip(
            jax.tree_util.tree_leaves_with_path(state.params),
            jax.tree.leaves(specs, is_leaf=_is_spec),
            strict=True,
        )
    }
    longest = max(map(len, known))

    def of_leaf(path: Any, leaf: Any) -> NamedSharding:
        keys = _keys(path)
        for first in range(len(keys)):
            for last in range(first + 1, min(len(keys), first + longest) + 1):
                shape, spec = known.get(keys[first:last], (None, None))
                if spec is not None and shape == leaf.shape:
                    return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(of_leaf, state)


def check_replicated(config: MeshConfig, mesh: Mesh, state: TrainState, placed: TrainState) -> None:
    """Check how much of a training state every device of a copy of the model keeps whole.

    Args:
        config: of the mesh, for `max_replicated`.
        mesh: the mesh.
        state: of shapes.
        placed: the sharding of each array.

    Raises:
        ConfigError: arrays of more than `mesh.max_replicated` of the bytes are not split over
            `fsdp` (over `tensor` without it). A model below 10M parameters gives a warning.
    """
    axis = next((name for name in ("fsdp", "tensor") if mesh.shape[name] > 1), None)
    if axis is None:
        return
    whole: dict[str, int] = {}
    total = 0
    for (path, leaf), sharding in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(placed), strict=True
    ):
        size = math.prod(leaf.shape) * _itemsize(leaf)
        total += size
        if axis not in sharding.spec:
            whole[".".join(_keys(path))] = size
    share = sum(whole.values()) / max(total, 1)
    if share <= config.max_replicated:
        return
    largest = sorted(whole, key=lambda name: -whole[name])[:3]
    text = (
        f"{share:.1%} of the training state is not split over mesh.{axis}={mesh.shape[axis]}, more "
        f"than mesh.max_replicated={config.max_replicated} (the largest: {', '.join(largest)}): "
        f"choose mesh.{axis} so that it divides their dimensions, or raise mesh.max_replicated."
    )
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    require(parameters < LARGE, text)
    log.warning(text)


def _itemsize(leaf: Any) -> int:
    return 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize


def _is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec)


def _keys(path: Any) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
