"""How Orbax works in a run of several processes.

By default, all processes save to and load from one folder that they share, process 0 writes the
metadata, and all wait for each other at barriers.
"""

from typing import Any

from orbax.checkpoint import v1 as ocp

from miras.runtime import processes


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
    so that the union of these folders is the checkpoint.
    """
    # Orbax would compare the metadata of all processes, of which each folder has those of one.
    saving = ocp.options.ArrayOptions.Saving(
        use_ocdbt=False, use_replica_parallel=False, array_metadata_store=None
    )
    return ocp.Context(
        multiprocessing_options=ocp.options.MultiprocessingOptions(primary_host=processes.index()),
        array_options=ocp.options.ArrayOptions(saving=saving),
        # Otherwise a process would wait for the new folders of another one.
        async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
    )


def ignore_preemption(orbax: ocp.training.Checkpointer) -> None:
    """Keep Orbax from asking jax for a preemption, in each save and in a thread after it.

    Orbax asks with the step as the counter, and jax then takes the step for the last counter of
    this process, in place of that of `signals.poll`. After a signal, the counter at which all
    processes agree to stop can be one that some of them have passed: these go on, and the others
    wait for them in the save. Orbax has no public option for this.
    """
    manager: Any = orbax._manager
    manager.reached_preemption = lambda step: False
