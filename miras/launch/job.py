"""A job: a command, the slice on which it runs, and where; and what a tool makes of it."""

import dataclasses
import re
import shlex

from miras.config import require
from miras.config.choices import shown
from miras.parallel.slices import Slice
from miras.runtime.cluster import EXIT_LOST

# What a run ends with where the same command goes on: 75 after a lost or hanging process, 134 where
# jax ends it, 137 after SIGKILL, 143 after SIGTERM, at which it has saved a checkpoint.
REPEATED = (EXIT_LOST, 134, 137, 143)
SHARED = "/shared"  # where the hosts mount a file system
PORT = 8476  # of process 0, where the environment gives no address

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # the narrowest of the tools', xpk's


@dataclasses.dataclass(frozen=True)
class LaunchJob:
    """What is launched.

    Attributes:
        command: the words of `miras train ...`, without `miras`.
        on: the slice, or slices, or hosts of GPUs.
        name: of the job and its files: lower-case letters, digits and "-", at most 40.
        image: of the container, which the Dockerfile of this repository makes.
        spot: whether the chips may be taken away at any time, for a lower price.
        restarts: how often a tool that counts starts the command again, >= 0.
        zone: of the cloud; "" where the tool has one or finds one.
        project: of the cloud; "" for the default of the tool.
        cluster: of xpk, or the address of Ray; "" for the default of the tool.
        shared: what the hosts mount at /shared: an NFS export, HOST:/PATH, or a storage of xpk;
            "" for nothing.

    Raises:
        ConfigError: the name is not of this form, or restarts are negative.
    """

    command: tuple[str, ...]
    on: Slice
    name: str
    image: str
    spot: bool = False
    restarts: int = 100
    zone: str = ""
    project: str = ""
    cluster: str = ""
    shared: str = ""

    def __post_init__(self):
        require(
            _NAME.fullmatch(self.name) is not None,
            f"--name {shown(self.name)} must have lower-case letters, digits and '-', begin with a "
            "letter and not end with '-', at most 40 of them.",
        )
        require(self.restarts >= 0, f"--restarts {self.restarts} must be at least 0.")

    @property
    def words(self) -> str:
        """The command for a shell, on one line."""
        return shlex.join(["miras", *self.command])


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a tool reads, and how to submit it.

    Attributes:
        files: texts by file name.
        submit: commands of the tool, in order.
        notes: what to know, a line each.
    """

    files: dict[str, str]
    submit: tuple[str, ...]
    notes: tuple[str, ...] = ()


def mount_commands(job: LaunchJob, sudo: str = "") -> list[str]:
    """Commands that mount the shared file system on a host of Debian or Ubuntu, once."""
    if not job.shared:
        return []
    source = shlex.quote(job.shared)
    return [
        f"{sudo}apt-get update -q && {sudo}apt-get install -qy nfs-common",
        f"{sudo}mkdir -p {SHARED}",
        f"mountpoint -q {SHARED} || {sudo}mount -t nfs {source} {SHARED}",
    ]


def needs_tpus(job: LaunchJob, tool: str) -> None:
    """Raise ConfigError unless the job is on TPUs."""
    require(
        job.on.generation.is_tpu,
        f"{tool} starts jobs on TPUs, not on {job.on.name}: use sky, slurm or ray.",
    )


def needs_one_slice(job: LaunchJob, tool: str) -> None:
    """Raise ConfigError for several slices of TPUs, which the tool does not connect."""
    require(
        job.on.count == 1,
        f"{tool} does not connect {job.on.count} slices, as {job.on.name} needs: use xpk or "
        "gcloud, or one slice.",
    )
