"""xpk: a workload on a GKE cluster, of one or more slices.

https://github.com/AI-Hypercomputer/xpk; GKE gives each process its place in its environment.
"""

import shlex

from miras.launch.job import REPEATED, SHARED, Launch, LaunchJob, needs_tpus

_SIGNALS = 127  # from which xpk starts a workload again anyway
_GRACE = 300  # seconds between SIGTERM and SIGKILL: one step and one checkpoint


def launch(job: LaunchJob) -> Launch:
    """The command that creates a workload.

    Raises:
        ConfigError: the job is not on TPUs.
    """
    needs_tpus(job, "xpk")
    options = {
        "cluster": job.cluster or "my-cluster",
        "workload": job.name,
        "tpu-type": job.on.accelerator,
        "num-slices": str(job.on.count),
        "docker-image": job.image,
        "max-restarts": str(job.restarts),
        "restart-on-exit-codes": ",".join(str(code) for code in REPEATED if code < _SIGNALS),
        "termination-grace-period-seconds": str(_GRACE),
        **({"zone": job.zone} if job.zone else {}),
        **({"project": job.project} if job.project else {}),
        **({"storage": job.shared} if job.shared else {}),
        "command": job.words,
    }
    words = [f"--{name}={shlex.quote(value)}" for name, value in options.items()]
    name = f"{job.name}.xpk.sh"
    kind = "--spot " if job.spot else "--on-demand "
    create = (
        f"xpk cluster create --cluster={options['cluster']} --tpu-type={job.on.accelerator} "
        f"--num-slices={job.on.count} {kind}".rstrip()
    )
    text = "#!/bin/bash\n# Submits the job to the cluster.\nset -eu\n"
    text += " \\\n    ".join(["exec xpk workload create", *words]) + "\n"
    return Launch(
        files={name: text},
        submit=(f"bash {name}",),
        notes=(
            f"A cluster is made once: {create}",
            f"A storage is attached once, at {SHARED}, by xpk storage attach.",
            f"Logs: xpk workload list --cluster={options['cluster']}, and kubectl logs.",
        ),
    )
