"""The rows and the mesh of a run on a slice, where the user gives tokens a step and no mesh."""

import dataclasses

from miras.analysis.plan.slices import PlannedSlice
from miras.config import require
from miras.parallel import MeshConfig
from miras.train.config import RunConfig


def fitted(
    config: RunConfig, on: PlannedSlice, tokens: int | None, *, mesh_given: bool
) -> RunConfig:
    """The run on the slice.

    Args:
        config: the run.
        on: the slice.
        tokens: of a step, from which the rows of a batch follow; None for those of the config.
        mesh_given: whether to keep the mesh of the config; otherwise `fsdp` takes all chips, and
            `tensor` as many as keep a row for each of the others. With several slices, `data` is
            between them.

    Raises:
        ConfigError: a step has fewer tokens than a row for each part of the batch.
    """
    data, batches = config.data, config.train.accumulate
    wanted = data.batch if tokens is None else tokens / (data.sequence * batches)
    if not mesh_given:
        config = dataclasses.replace(config, mesh=_mesh(config, on, wanted))
    if tokens is None:
        return config
    sizes = config.mesh.sizes(on.chips)
    parts = sizes["data"] * sizes["fsdp"]
    require(
        wanted >= 0.5 * parts,
        f"tokens_per_step={tokens} with data.sequence={data.sequence} and train.accumulate="
        f"{batches} makes batches of {wanted:.4g} rows, fewer than mesh.data x mesh.fsdp={parts}: "
        "raise tokens_per_step, or use mesh.tensor or mesh.seq.",
    )
    rows = parts * max(1, round(wanted / parts))
    return dataclasses.replace(config, data=dataclasses.replace(data, batch=rows))


def _mesh(config: RunConfig, on: PlannedSlice, rows: float) -> MeshConfig:
    base = dataclasses.replace(config.mesh, slices=on.slices, data=on.slices, fsdp=-1)
    heads = {config.model.block(x).heads or config.model.heads for x in config.model.letters}
    inside, tensor = on.chips // on.slices, 1
    while (
        on.slices * inside // tensor > 1.01 * rows
        and inside % (2 * tensor) == 0
        and all(n % (2 * tensor) == 0 for n in heads)
    ):
        tensor *= 2
    return dataclasses.replace(base, tensor=tensor)
