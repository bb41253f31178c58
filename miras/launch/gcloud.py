"""gcloud: a queued resource of TPU VMs, whose start-up script runs the job on each host.

https://cloud.google.com/tpu/docs/queued-resources; several slices are the nodes of one resource,
whose metadata connects them.
"""

import shlex

from miras.launch.job import REPEATED, SHARED, Launch, LaunchJob, mount_commands, needs_tpus

_GRACE = 120  # seconds between SIGTERM and SIGKILL, of the 30 to 120 that a spot VM has


def launch(job: LaunchJob) -> Launch:
    """The command that queues the resource, and the start-up script of its hosts.

    Raises:
        ConfigError: the job is not on TPUs.
    """
    needs_tpus(job, "gcloud")
    script, name = f"{job.name}.startup.sh", f"{job.name}.gcloud.sh"
    zone = job.zone or "my-zone"
    where = {"zone": zone, **({"project": job.project} if job.project else {})}
    options = {
        **where,
        "accelerator-type": job.on.accelerator,
        "runtime-version": job.on.generation.runtime,
        **(
            {"node-count": str(job.on.count), "node-prefix": job.name}
            if job.on.count > 1
            else {"node-id": job.name}
        ),
        "scopes": "https://www.googleapis.com/auth/cloud-platform",
        "metadata-from-file": f"startup-script={script}",
    }
    words = [f"--{option}={shlex.quote(value)}" for option, value in options.items()]
    words += ["--spot"] * job.spot
    text = "#!/bin/bash\n# Queues the slice; its hosts start the job when it is there.\nset -eu\n"
    first = f"exec gcloud compute tpus queued-resources create {job.name}"
    text += " \\\n    ".join([first, *words]) + "\n"
    there = " ".join(f"--{option}={value}" for option, value in where.items())
    node = job.name if job.on.count == 1 else f"{job.name}-0"
    return Launch(
        files={script: _script(job), name: text},
        submit=(
            f"bash {name}",
            f"gcloud compute tpus queued-resources describe {job.name} {there}",
            f"gcloud compute tpus tpu-vm ssh {node} {there} --worker=0 "
            "--command='sudo docker logs --follow miras'",
            f"gcloud compute tpus queued-resources delete {job.name} {there} --force",
        ),
        notes=(
            "A resource whose chips were taken away is SUSPENDED: delete it and queue it again, "
            "and the job resumes from its run folder.",
        ),
    )


def _script(job: LaunchJob) -> str:
    """Runs the container until the job ends by itself; the host runs it again after each boot."""
    registry = job.image.partition("/")[0]
    login = f"gcloud auth configure-docker {registry} --quiet\n" if ".pkg.dev" in registry else ""
    mount = "".join(f"{line}\n" for line in mount_commands(job))
    volume = f" --volume {SHARED}:{SHARED}" if job.shared else ""
    codes = " | ".join(map(str, REPEATED))
    return f"""#!/bin/bash
# Runs on every host of the slice, at each boot.
{mount}{login}docker pull {shlex.quote(job.image)}
while true; do
    docker rm --force miras 2> /dev/null
    docker run --name miras --init --privileged --network host --stop-timeout {_GRACE}{volume} \\
        {shlex.quote(job.image)} \\
        {job.words}
    code=$?
    # These codes ask for the same command again; any other ends the job.
    case $code in
        {codes}) sleep 10 ;;
        *) break ;;
    esac
done
exit $code
"""
