"""Kinds of the buffers of a compiled step: what each array in HBM is for.

Arguments are told apart by their paths in the training state. Temporaries have no name that says
what they are, and are told apart by their shapes: those of parameters, of the residual stream
stacked over layers, of memories, and of logits.
"""

import math
from collections.abc import Iterable

import jax

from miras.analysis.plan.assignment import Buffer
from miras.analysis.plan.job import Job, mixers
from miras.layers.head_sizes import head_widths
from miras.mixers.costs import weights_of

KINDS: tuple[str, ...] = (
    "parameters",
    "optimiser",
    "batches",
    "gradients",
    "inputs",
    "memories",
    "activations",
    "weights",
    "loss",
)


def by_kind(buffers: Iterable[Buffer], job: Job) -> dict[str, int]:
    """Bytes of each of `KINDS`.

    Args:
        buffers: of `assignment.at_peak`.
        job: the run that was compiled.
    """
    shapes = _Shapes(job)
    found: dict[str, int] = dict.fromkeys(KINDS, 0)
    for buffer in buffers:
        found[_argument(buffer) if buffer.argument else shapes.kind(buffer)] += buffer.bytes
    return found


def _argument(buffer: Buffer) -> str:
    if buffer.source.startswith("state.params"):
        return "parameters"
    return "optimiser" if buffer.source.startswith("state.") else "batches"


class _Shapes:
    """The shapes by which temporaries are known."""

    def __init__(self, job: Job):
        model = job.config.model
        row = job.config.data.sequence // job.sizes["seq"]
        self.stacked, self.width = (job.groups, job.rows, row), model.width
        self.outputs, self.reads = {job.head.outputs, job.outputs}, job.head_reads
        self.by_token = job.head.by_token
        # Parameters of a layer or of all, whole or split: as numbers of elements, since the
        # compiler transposes and reshapes them.
        self.sizes: set[int] = set()
        for leaf in job.leaves:
            if leaf.path[0] == "params" and leaf.size >= model.width**2:
                parts = {math.prod(job.sizes[a] for a in some) for some in _subsets(leaf.split)}
                layers = {1, job.groups} if leaf in job.layer_leaves else {1}
                self.sizes |= {leaf.size // n // k for n in parts for k in layers}
        self.memories: set[tuple[int, ...]] = set()
        for block, heads in job.blocks():
            for config, width, own in mixers(block, model.width, heads):
                for rule in config.mixer.rules(config):
                    if rule.memory.token_cache is None:
                        leaves = jax.tree.leaves(
                            weights_of(rule, *head_widths(config.layer, width, own))
                        )
                        self.memories |= {leaf.shape for leaf in leaves if leaf.ndim == 2}

    def kind(self, buffer: Buffer) -> str:
        """The kind of a temporary."""
        shape, matrix = buffer.shape, buffer.shape[-2:]
        if shape[:3] == self.stacked:
            return "inputs"
        of_memory = matrix in self.memories or matrix[::-1] in self.memories
        loops = "miras_forward" in buffer.source or "while" in buffer.source
        if len(shape) >= 5 and of_memory and loops and buffer.dtype == "f32":
            return "memories"
        if self._of_head(shape):
            return "loss"
        if math.prod(shape) in self.sizes:
            return "gradients" if buffer.dtype == "f32" else "weights"
        return "activations"

    def _of_head(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape is that of the head's outputs: of some tokens, or of all rows."""
        if len(shape) != 2 or not self.outputs & set(shape):
            return False
        if self.by_token:
            return self.width not in shape
        return any({output, self.reads} == set(shape) for output in self.outputs)


def _subsets(axes: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not axes:
        return [()]
    rest = _subsets(axes[1:])
    return [*rest, *((axes[0], *some) for some in rest)]
