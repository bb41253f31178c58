"""SkyPilot: a managed job, which SkyPilot starts again elsewhere after a preemption.

https://docs.skypilot.co/en/latest/reference/yaml-spec.html
"""

import json

from miras.launch.job import PORT, REPEATED, Launch, LaunchJob, mount_commands, needs_one_slice


def launch(job: LaunchJob) -> Launch:
    """The YAML of a managed job.

    Raises:
        ConfigError: the job is on several slices of TPUs.
    """
    needs_one_slice(job, "sky")  # whose hosts are one node of SkyPilot
    tpu = job.on.generation.is_tpu
    lines = [
        f"# Submit: sky jobs launch {job.name}.sky.yaml",
        f"name: {job.name}",
        f"num_nodes: {1 if tpu else job.on.hosts}",
        "resources:",
        *_where(job),
        *(_tpu(job) if tpu else _gpu(job)),
        f"  use_spot: {json.dumps(job.spot)}",
        f"  image_id: docker:{job.image}",
        "  job_recovery:",
        "    strategy: EAGER_NEXT_REGION",
        "    max_restarts_on_errors: 0",
        f"    recover_on_exit_codes: {json.dumps(REPEATED)}",
        *(["setup: |"] if job.shared else []),
        *(f"  {line}" for line in mount_commands(job, "sudo ")),
        "run: |",
        f"  {job.words}{'' if tpu or job.on.hosts == 1 else _processes()}",
    ]
    name = f"{job.name}.sky.yaml"
    return Launch(
        files={name: "\n".join(lines) + "\n"},
        submit=(f"sky jobs launch {name}", f"sky jobs logs --name {job.name}"),
        notes=(
            "The job starts again after a preemption and after exit codes that ask for it, and "
            "resumes from its run folder.",
        ),
    )


def _where(job: LaunchJob) -> list[str]:
    """TPUs are at Google; SkyPilot chooses among the clouds for GPUs."""
    if job.zone:
        return [f"  infra: gcp/*/{job.zone}"]
    return ["  infra: gcp"] * job.on.generation.is_tpu


def _tpu(job: LaunchJob) -> list[str]:
    return [
        f"  accelerators: tpu-{job.on.accelerator}:1",
        "  accelerator_args:",
        "    tpu_vm: true",
        f"    runtime_version: {job.on.generation.runtime}",
    ]


def _gpu(job: LaunchJob) -> list[str]:
    return [f"  accelerators: {job.on.generation.name.upper()}:{job.on.chips_per_host}"]


def _processes() -> str:
    """The options that connect the nodes, whose numbers and addresses SkyPilot gives."""
    first = '"$(echo "$SKYPILOT_NODE_IPS" | head -n1)'
    return (
        f' --coordinator {first}:{PORT}" --processes "$SKYPILOT_NUM_NODES" '
        '--process "$SKYPILOT_NODE_RANK"'
    )
