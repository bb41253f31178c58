"""FLOPs of a train step, by part, counted from the shapes of its matrix products.

A multiply-add counts as two. With N tokens a step, the forward pass has

    2 N P              of the matrices with P entries that a token is multiplied by
    N sum f_l          of memories and attention, f_l of layer l (`TokenMixer.flops`)
    2 N V width        of the logits; the ends of another model than a language model are counted
                       as its objective says (`miras.models.objective.Head`)

and the backward pass twice as many: each product y = x W has two for dx and dW. This is what
"model FLOPs" means in the utilisation of PaLM (2204.02311, appendix B). What the chips compute
beyond it is counted separately: blocks are recomputed (`remat`), and the backward pass of a memory
recomputes each chunk from a saved state. Attention over T tokens sees (T + 1) / 2 on average.
"""

import dataclasses
from typing import NamedTuple

from miras.analysis.costs import first_values_flops
from miras.analysis.plan.job import Job, mixers
from miras.mixers.base import MixerConfig, TokenMixer
from miras.mixers.costs import update_and_read_flops

_SAMPLES = 64  # lengths of context at which attention is counted


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of a step, of all chips: the forward pass by part.

    Attributes:
        logits: of the output head, and of what else is outside of the blocks.
        projections: of token mixers, gates and output projections included.
        channels: of channel mixers.
        attention: of scores and sums.
        update: of the memories' writes.
        read: of the memories' reads.
        recomputed: of dense parts and of attention in the backward pass, which `remat` recomputes.
        memory_passes: forward passes of memories that a step makes, with recomputation; the
            backward passes proper, of two each, come on top.
    """

    logits: float
    projections: float
    channels: float
    attention: float
    update: float
    read: float
    recomputed: float
    memory_passes: int

    @property
    def memory(self) -> float:
        """Of memories, forward."""
        return self.update + self.read

    @property
    def forward(self) -> float:
        """Of the forward pass."""
        dense = self.logits + self.projections + self.channels
        return dense + self.attention + self.memory

    @property
    def model(self) -> float:
        """Model FLOPs: forward and backward, nothing twice."""
        return 3 * self.forward

    @property
    def dense(self) -> float:
        """What the chips compute outside of memories."""
        return 3 * (self.forward - self.memory) + self.recomputed

    @property
    def in_memories(self) -> float:
        """What the chips compute in memories."""
        return (self.memory_passes + 2) * self.memory

    @property
    def hardware(self) -> float:
        """What the chips compute in all."""
        return self.dense + self.in_memories


class _Mixed(NamedTuple):
    attention: float
    update: float
    read: float


def step_flops(job: Job) -> Flops:
    """The FLOPs of a train step."""
    tokens, row = job.step_tokens, job.config.data.sequence
    mixed = [_mixed(job, *mixer) for block in job.blocks() for mixer in _of(job, *block)]
    attention, update, read = (
        tokens * job.groups * sum(parts) for parts in zip(*mixed, strict=True)
    )
    matrices = {"mixer": 0, "mlp": 0}
    for leaf in job.layer_leaves:
        if leaf.path[4] in matrices and not {"initial", "persistent"} & set(leaf.path):
            matrices[leaf.path[4]] += leaf.size
    projections, channels = (2.0 * tokens * size for size in matrices.values())
    projections += tokens * first_values_flops(job.config.model)
    again, passes = _recomputed(job.remat)
    return Flops(
        logits=job.head.flops(row) * tokens / row,
        projections=projections,
        channels=channels,
        attention=attention,
        update=update,
        read=read,
        recomputed=again * (projections + channels) + (again and job.remat == "full") * attention,
        memory_passes=passes,
    )


def _recomputed(remat: str) -> tuple[int, int]:
    """How often dense parts are recomputed, and forward passes of memories in a step.

    The backward pass of a memory always has one of its own, from the saved states.
    """
    again = {"full": 1, "save_memory_outputs": 1, "offload": 1}.get(remat, 0)
    return again, 3 if remat == "full" else 2


def _of(job: Job, block: MixerConfig, heads: int) -> list[tuple[MixerConfig, int, int]]:
    return list(mixers(block, job.config.model.width, heads))


def _mixed(job: Job, config: MixerConfig, width: int, heads: int) -> _Mixed:
    """FLOPs of a token in a mixer without projections, on average over a row."""
    mixer, sequence = config.mixer, job.config.data.sequence
    total = _average(config, width, heads, sequence)
    rules = [rule for rule in mixer.rules(config) if rule.memory.token_cache is None]
    if not rules:
        return _Mixed(total, 0.0, 0.0)
    parts = [
        update_and_read_flops(rule, config.options, config.layer, width, heads) for rule in rules
    ]
    update, read = (sum(part) for part in zip(*parts, strict=True))
    if "attention" in mixer.uses:
        return _Mixed(total - update - read, update, read)
    # What a mixer adds to its memory (levels, cached memories) is in proportion.
    share = update / (update + read)
    return _Mixed(0.0, share * total, (1 - share) * total)


def _average(config: MixerConfig, width: int, heads: int, sequence: int) -> float:
    mixer: TokenMixer = config.mixer

    def at(context: float) -> float:
        return mixer.flops(config, width, heads, int(context))

    if at(1) == at(sequence // 2) == at(sequence):
        return at(sequence)
    number = min(_SAMPLES, sequence)
    return sum(at((n + 0.5) * sequence / number + 0.5) for n in range(number)) / number
