"""The options of commands whose work a Ray cluster can do."""

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from miras.config import require

if TYPE_CHECKING:
    from miras.analysis.ablate.ray_cluster import RayOptions
    from miras.train import RunConfig

    Check = Callable[[RunConfig], str | None]

_NEEDS = ("cpus", "gpus", "resources")


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add `--ray`, and what each run needs of a node."""
    group = parser.add_argument_group("a Ray cluster (docs/sweeps.md)")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run the cells on a Ray cluster: auto for that of this machine, or HOST:PORT of its "
        "head; --out must be on a disk that all nodes share, or in a bucket",
    )
    group.add_argument("--cpus", type=float, metavar="N", help="CPU cores of each run (default: 1)")
    group.add_argument("--gpus", type=float, metavar="N", help="GPUs of each run (default: 0)")
    group.add_argument(
        "--resources",
        metavar="NAME:AMOUNT[,...]",
        help="other resources of each run, such as TPU-v5litepod-8-head:1, all chips of a host",
    )


def ray_options(args: argparse.Namespace) -> "RayOptions | None":
    """The cluster that the arguments name; None for this machine.

    Raises:
        ConfigError: Ray is not installed, an argument is invalid, or it needs another one.
    """
    if args.ray is None:
        for name in _NEEDS:
            given = getattr(args, name) is None
            require(given, f"--{name} is for a Ray cluster: give its address with --ray, or auto.")
        return None
    require(args.jobs is None, "--ray decides how many runs run at once: leave out --jobs.")

    import jax

    from miras.analysis.ablate.ray_cluster import RayOptions, parse_resources

    options = RayOptions(
        args.ray,
        1 if args.cpus is None else args.cpus,
        args.gpus or 0,
        {} if args.resources is None else parse_resources(args.resources),
    )
    # The accelerators of this machine, which may be a node, are for the cells.
    jax.config.update("jax_platforms", "cpu")
    return options


def check_without_mesh(check: "Check") -> "Check":
    """A check of runs whose mesh is over the devices of another machine."""
    from miras.parallel.config import MeshConfig

    return lambda config: check(dataclasses.replace(config, mesh=MeshConfig()))
