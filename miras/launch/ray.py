"""Ray: a job whose driver starts one process on each host of a slice, and starts all again.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission; Ray counts the chips of
TPU hosts as the resource TPU.
"""

import json
import shlex

from miras.launch.job import PORT, REPEATED, Launch, LaunchJob, needs_one_slice


def launch(job: LaunchJob) -> Launch:
    """The driver, and the command that submits it.

    Raises:
        ConfigError: the job is on several slices of TPUs.
    """
    needs_one_slice(job, "ray")
    name = f"{job.name}.ray.py"
    address = f" --address {shlex.quote(job.cluster)}" if job.cluster else ""
    return Launch(
        files={name: driver(job)},
        submit=(
            f"ray job submit{address} --submission-id {job.name} --no-wait --working-dir . -- "
            f"python {name}",
            f"ray job logs{address} --follow {job.name}",
        ),
        notes=(
            "The nodes need an environment with miras, or the image "
            f"{job.image}. --working-dir uploads the folder: submit from a small one.",
        ),
    )


def driver(job: LaunchJob) -> str:
    """The text of the driver, which needs Ray alone."""
    tpu, chips = job.on.generation.is_tpu, job.on.chips_per_host
    words = "".join(f"    {json.dumps(word)},\n" for word in ("miras", *job.command))
    host = {"CPU": 1, "TPU" if tpu else "GPU": chips}
    options = {"num_cpus": 1, **({"resources": {"TPU": chips}} if tpu else {"num_gpus": chips})}
    hosts = f"{job.on.hosts} host{'s'[: job.on.hosts > 1]}"
    return f'''"""Runs `miras train` on {hosts} of {job.on.name}: `ray job submit` it."""

import subprocess
import sys

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

COMMAND = [
{words}]
HOSTS = {job.on.hosts}
HOST = {json.dumps(host)}
OPTIONS = {json.dumps(options)}
NUMBERED = {not tpu and job.on.hosts > 1}  # the environment of a TPU host numbers its process
PORT = {PORT}
RESTARTS = {job.restarts}
REPEATED = {REPEATED}  # exit codes after which the same command goes on
{_BODY}'''


_BODY = '''

@ray.remote(num_cpus=0, max_retries=0)
def address():
    return ray.util.get_node_ip_address()


@ray.remote(max_retries=0)
def run(options):
    return subprocess.call([*COMMAND, *options])


def attempt():
    """One process on each host: its exit code that ends the job, 75 if a node is lost, or 0."""
    group = placement_group([HOST] * HOSTS, strategy="STRICT_SPREAD")
    try:
        ray.get(group.ready())
        hosts = [PlacementGroupSchedulingStrategy(group, n) for n in range(HOSTS)]
        first = ray.get(address.options(scheduling_strategy=hosts[0]).remote())
        tasks = []
        for n, host in enumerate(hosts):
            numbers = ["--coordinator", f"{first}:{PORT}", "--processes", HOSTS, "--process", n]
            options = list(map(str, numbers)) if NUMBERED else []
            tasks.append(run.options(**OPTIONS, scheduling_strategy=host).remote(options))
        codes = [code if code >= 0 else 128 - code for code in ray.get(tasks)]  # -15: by SIGTERM
        return max(codes, key=lambda code: (code != 0) + (code not in (0, *REPEATED)))
    except ray.exceptions.RayError as error:
        print(error, flush=True)
        return 75
    finally:
        remove_placement_group(group)


ray.init()
code = 75
for _ in range(RESTARTS + 1):
    code = attempt()
    if code not in REPEATED:
        break
sys.exit(code)
'''
