"""Writes what an existing launcher reads, so that it starts `miras train` on a slice or a cluster.

Nothing here talks to a cluster: `miras launch TOOL -- train ...` writes files, and prints the
commands of the tool that submit them. A tool is a module with a function from a `LaunchJob` to a
`Launch`.
"""

from miras.launch import gcloud, ray, sky, slurm, xpk
from miras.launch.job import Launch, LaunchJob

TOOLS = {
    "sky": sky.launch,
    "xpk": xpk.launch,
    "gcloud": gcloud.launch,
    "slurm": slurm.launch,
    "ray": ray.launch,
}

__all__ = ["TOOLS", "Launch", "LaunchJob"]
