"""SLURM: a batch script on nodes of GPUs, which puts itself back into the queue.

docs/scaling.md says why it has each of its lines.
"""

from miras.config import require
from miras.launch.job import REPEATED, Launch, LaunchJob

_CPUS = 8  # of each process, for its data
_WARNING = 300  # seconds before the time limit at which the run is told to save


def launch(job: LaunchJob) -> Launch:
    """The batch script.

    Raises:
        ConfigError: the job is on TPUs.
    """
    require(
        not job.on.generation.is_tpu,
        f"slurm starts jobs on GPUs, not on {job.on.name}: give --on h100-32, or use sky, xpk, "
        "gcloud or ray.",
    )
    name = f"{job.name}.sbatch"
    return Launch(
        files={name: script(job)},
        submit=(f"sbatch {name}", "squeue --me"),
        notes=("All nodes must see the data, the run folder and an environment with miras.",),
    )


def script(job: LaunchJob) -> str:
    """The text of the batch script."""
    gpus = job.on.chips_per_host
    codes = " | ".join(map(str, REPEATED))
    return f"""#!/bin/bash
#SBATCH --job-name={job.name}
#SBATCH --nodes={job.on.hosts}
#SBATCH --gpus-per-node={gpus}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --cpus-per-task={_CPUS}
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@{_WARNING}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={job.name}-%j.log

# All nodes must see the data and the run folder.
srun --kill-on-bad-exit=0 --wait=600 \\
    {job.words}
code=$?

# 143: stopped by SIGTERM and saved; 75 and 134: a process was lost or hung; 137: one was killed.
case $code in
    {codes}) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit $code
"""
