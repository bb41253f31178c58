"""How Orbax works in a run of several processes.

By default, all processes save to and load from one folder that they share, process 0 writes the
metadata, and all wait for each other at barriers.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from orbax.checkpoint import checkpoint_manager
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.metadata.array_metadata_store import Store  # it has no public name

from miras.runtime import processes


class _OwnMetadata(Store):
    """The metadata of arrays (the kind of random keys, ...), as one process writes them.

    Orbax compares those of all processes if process 0 or another one writes for all, and fails if
    they are not in its folder.
    """

    async def read(self, checkpoint_dir: Any, process_index: int | None = None) -> Any:
        """The metadata of one process; None for those of all."""
        return None if process_index is None else await super().read(checkpoint_dir, process_index)


def loading_alone() -> ocp.Context:
    """Options with which a process loads without the others, since it may find damage and stop."""
    own = processes.index()
    return ocp.Context(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}
        )
    )


def saving_apart() -> ocp.Context:
    """Options with which all processes save at once, each to a folder that no other one sees.

    A process writes all metadata, and the shards of its devices, each shard of an array once among
    all processes. Every shard is a file of its own (Zarr without OCDBT, which Orbax would merge),
    so that the union of these folders is the checkpoint. No process waits for another one, which
    may have failed.
    """
    own = processes.index()
    saving = ocp.options.ArrayOptions.Saving(
        use_ocdbt=False, use_replica_parallel=False, array_metadata_store=_OwnMetadata()
    )
    return ocp.Context(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}
        ),
        array_options=ocp.options.ArrayOptions(saving=saving),
        # Otherwise a process would wait for the new folders of another one.
        async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
    )


@contextlib.contextmanager
def in_existing_folder() -> Iterator[None]:
    """Let an Orbax checkpointer that is made in the block create no folder.

    Orbax creates it by default, raises an error if active processes are given as well, and lets no
    caller of `ocp.training.Checkpointer` choose.
    """
    options = checkpoint_manager.CheckpointManagerOptions
    module: Any = checkpoint_manager
    module.CheckpointManagerOptions = functools.partial(options, create=False)
    try:
        yield
    finally:
        module.CheckpointManagerOptions = options


def ignore_preemption(orbax: ocp.training.Checkpointer) -> None:
    """Keep Orbax from asking jax for a preemption, in each save and in a thread after it.

    Orbax asks with the step as the counter, and jax then takes the step for the last counter of
    this process, in place of that of `signals.poll`. After a signal, the counter at which all
    processes agree to stop can be one that some of them have passed: these go on, and the others
    wait for them in the save. Orbax has no public option for this.
    """
    manager: Any = orbax._manager
    manager.reached_preemption = lambda step: False
