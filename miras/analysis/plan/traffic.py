"""What chips send each other in a step: bytes by kind, and the time that links need for them.

An exchange of V bytes among n chips takes V (n - 1) / n over the bytes/s of the links that it uses,
twice that for an all-reduce. A mesh axis that fills dimensions of the torus uses both directions of
them; one that fills a part of a dimension has no ring, and uses one.
"""

import math
from typing import NamedTuple

from miras.analysis.plan.job import Job
from miras.analysis.plan.slices import PlannedSlice

_HOST = 8  # GPUs that share a switch


class Exchange(NamedTuple):
    """A kind of collective.

    Attributes:
        kind: of the collective.
        what: it is of.
        axis: of the mesh, "slices" between slices.
        count: of a step.
        bytes: of the whole arrays on a chip, in a step.
        seconds: that the links need.
        hidden: whether the compiler overlaps it with computation.
    """

    kind: str
    what: str
    axis: str
    count: int
    bytes: float
    seconds: float
    hidden: bool


def step_traffic(job: Job) -> list[Exchange]:
    """The collectives of a step."""
    sizes, config = job.sizes, job.config
    again = job.remat in ("full", "save_memory_outputs", "offload")
    batches, layers = config.train.accumulate, config.model.layers
    slices = job.slice.slices
    found: list[Exchange] = []

    def add(kind, what, axis, count, bytes, *, parts=None, hidden=True) -> None:
        parts = parts or sizes[axis]
        if parts > 1 and bytes:
            moved = bytes * (parts - 1) / parts * (2 if kind == "all-reduce" else 1)
            seconds = moved / bandwidth(job.slice, sizes, axis)
            found.append(Exchange(kind, what, axis, count, bytes, seconds, hidden))

    weights = [leaf for leaf in job.leaves if leaf.path[0] == "params" and "fsdp" in leaf.split]
    numbers = sum(leaf.size // _parts(job, leaf.split, "tensor") for leaf in weights)
    passes = 2 * batches  # the backward pass gathers again; recomputation uses the same
    add("all-gather", "weights", "fsdp", passes * layers, passes * numbers * job.itemsize)
    width = 2 if config.train.reduce == "bfloat16" else 4
    add("reduce-scatter", "gradients", "fsdp", batches * layers, batches * numbers * width)
    local = sum(
        leaf.size // math.prod(sizes[axis] for axis in leaf.split)
        for leaf in job.leaves
        if leaf.path[0] == "params"
    )
    inside = sizes["data"] // slices
    add("all-reduce", "gradients", "data", batches, batches * local * width, parts=inside)
    stream = job.tokens * config.model.width * job.itemsize * batches
    turns = 2 + again  # forward, backward, and forward again
    count = 2 * turns * layers
    add("all-reduce", "activations", "tensor", count * batches, count * stream, hidden=False)
    count = 4 * turns * layers  # q, k, v and the read
    moved = count * stream / sizes["tensor"]
    add("all-to-all", "tokens for heads", "seq", count * batches, moved, hidden=False)
    if slices > 1:
        bytes = batches * local * width
        seconds = 2 * bytes * (slices - 1) / slices / job.slice.chip.network
        found.append(Exchange("all-reduce", "gradients", "slices", 1, bytes, seconds, False))
    return found


def bandwidth(on: PlannedSlice, sizes: dict[str, int], axis: str) -> float:
    """Bytes/s of a chip along a mesh axis."""
    chip = on.chip
    if chip.torus == 0:
        order = ("tensor", "seq", "fsdp", "data")
        within = math.prod(sizes[name] for name in order[: order.index(axis) + 1])
        return chip.link if within <= _HOST else chip.network
    return chip.link * _links(on, sizes)[axis]


def _links(on: PlannedSlice, sizes: dict[str, int]) -> dict[str, int]:
    """Directed links that each axis uses; the innermost axis takes its dimensions first."""
    free, links = list(on.shape), {}
    for axis in ("tensor", "seq", "fsdp", "data"):
        left = sizes[axis] // (on.slices if axis == "data" else 1)
        links[axis] = 0
        for n, size in enumerate(free):
            part = math.gcd(left, size)
            if part > 1:
                ring = part == on.shape[n] and on.chip.wraps and part % on.chip.wraps == 0
                links[axis] += 2 if ring else 1
                free[n], left = size // part, left // part
        links[axis] = max(links[axis], 1)
    return links


def _parts(job: Job, split: tuple[str, ...], axis: str) -> int:
    return job.sizes[axis] if axis in split else 1
