"""The time of a step, from what is known without a chip.

    step = max(products, HBM) + kernels + exposed links

Products are those outside of memories, at a share of the peak; they overlap with the traffic of
HBM. Kernels of memories have the core to themselves. Links that move weights and gradients work
while the core computes, and are exposed where they take longer; those that move activations are on
the critical path, and so is what crosses slices.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from miras.analysis.plan import kernels
from miras.analysis.plan.flops import Flops, step_flops
from miras.analysis.plan.job import Job, mixers
from miras.analysis.plan.memory import ERROR, MemoryUse, block_bytes, saved_bytes, step_memory
from miras.analysis.plan.traffic import Exchange, step_traffic

# Arrays that one pass of a block writes and reads, over those that are live at the peak.
_TOUCHED = 0.75
FITTED = (
    "memory kernels: cycles of the products of each chunk, and a fit of vector work to the "
    "compiler's schedules for v5e"
)
ATTENTION = 0.5  # share of the efficiency of large products that attention's kernels reach


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A run's step on a slice.

    Attributes:
        job: the run and the slice.
        flops: of a step, of all chips.
        memory: of a chip at the peak.
        traffic: the collectives.
        products: seconds of a step in products outside of memories.
        hbm: seconds of HBM's traffic.
        kernels: seconds in memories.
        hidden: seconds of links that overlap with computation.
        exposed: seconds of links that do not.
        assumptions: sentences.
        fitted: seconds in memories by the fit, where `kernels` is by the compiled schedule.
    """

    job: Job
    flops: Flops
    memory: MemoryUse
    traffic: list[Exchange]
    products: float
    hbm: float
    kernels: float
    hidden: float
    exposed: float
    assumptions: tuple[str, ...]
    fitted: float | None = None

    @property
    def core(self) -> float:
        """Seconds of a step without links."""
        return max(self.products, self.hbm) + self.kernels

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return max(self.core, self.hidden) + self.exposed

    @property
    def bound(self) -> str:
        """What takes longest."""
        parts = {
            "products": self.products,
            "HBM": self.hbm,
            "memory kernels": self.kernels,
            "links": max(self.hidden - self.core, 0) + self.exposed,
        }
        if self.hidden > self.core:
            return "links"
        return max(parts, key=lambda name: parts[name])

    @property
    def tokens_per_second(self) -> float:
        """Of all chips."""
        return self.job.step_tokens / self.step

    @property
    def utilisation(self) -> float:
        """Model FLOPs over what the chips could do in the time."""
        on = self.job.slice
        return self.flops.model / (self.step * on.chips * on.chip.flops)

    @property
    def fits(self) -> bool:
        """Whether the peak is within the HBM of a chip."""
        return self.memory.peak <= self.job.slice.chip.hbm

    @property
    def fits_barely(self) -> bool:
        """Whether the peak is within the HBM of a chip by less than the error of the estimate."""
        return self.fits and self.memory.peak * (1 + ERROR) > self.job.slice.chip.hbm

    def hours(self, tokens: float) -> float:
        """To train on so many tokens."""
        return tokens / self.tokens_per_second / 3600


def predict(job: Job) -> Prediction:
    """The analytic plan of a run on a slice."""
    flops, traffic, chip = step_flops(job), step_traffic(job), job.slice.chip
    rate = job.slice.chips * chip.flops * chip.efficiency
    share = flops.attention / max(flops.forward - flops.memory, 1)
    products = flops.dense / rate * (1 + share * (1 / ATTENTION - 1))
    return Prediction(
        job=job,
        flops=flops,
        memory=step_memory(job),
        traffic=traffic,
        products=products,
        hbm=_hbm_bytes(job) / chip.bandwidth,
        kernels=_kernels(job, flops),
        hidden=sum(e.seconds for e in traffic if e.hidden),
        exposed=sum(e.seconds for e in traffic if not e.hidden),
        assumptions=tuple(_assumptions(job)),
    )


def memories(job: Job) -> Iterator[tuple[Any, Any, int, int]]:
    """(rule, the mixer's config, width of a head, heads) of each memory of the pattern.

    Args:
        job: the run.
    """
    for block, heads in job.blocks():
        for config, width, own in mixers(block, job.config.model.width, heads):
            for rule in config.mixer.rules(config):
                if rule.memory.token_cache is None:
                    yield rule, config, width // own, own


def _kernels(job: Job, flops: Flops) -> float:
    chip = job.slice.chip
    if chip.units is None:
        return flops.in_memories / (job.slice.chips * chip.flops * chip.small)
    total = 0.0
    for rule, config, head, heads in memories(job):
        each = kernels.cycles(rule, config.options, config.layer, head, chip.units)
        tokens = job.step_tokens * heads * job.groups / job.slice.chips
        total += kernels.seconds(chip, each, tokens, flops.memory_passes - 1)
    return total


def _hbm_bytes(job: Job) -> float:
    """That a chip reads and writes in a step."""
    batches, layers = job.config.train.accumulate, job.config.model.layers
    again = 2 if job.remat == "full" else 1
    blocks = _TOUCHED * block_bytes(job) * layers * 2 * (again + 2)  # written and read
    states = saved_bytes(job) * job.groups * (again + 1)
    logits = job.head_reads * job.outputs * 4 * 3
    weights = sum(leaf.size for leaf in job.layer_leaves) / job.sizes["tensor"]
    gathered = weights * (2 * 2 * job.itemsize + 2 * 4)
    state = 2 * (job.local("params") + job.local("opt_state")) + 2 * job.local("params")
    return batches * (blocks + states + logits + gathered) + state


def _assumptions(job: Job) -> Iterator[str]:
    chip = job.slice.chip
    if chip.units is not None:
        yield chip.assumption()
        yield FITTED
    else:
        yield (
            f"memories on {chip.name}: {chip.small:.0%} of the peak, for want of a schedule; "
            "no compiler is asked"
        )
    yield (
        f"products on {chip.name}: {chip.efficiency:.0%} of {chip.flops / 1e12:.4g} TFLOP/s, "
        f"attention {ATTENTION:.0%} of that; HBM at {chip.bandwidth / 1e9:.4g} GB/s"
    )
    if job.slice.chips > 1:
        yield (f"links of {chip.name}: {chip.link / 1e9:.4g} GB/s in each direction")
        yield "links of weights and gradients overlap with computation, of activations do not"
    if job.slice.slices > 1:
        yield f"between slices: {chip.network / 1e9:.4g} GB/s a chip, not overlapped"
    if chip.source:
        yield f"figures of {chip.name}: {chip.source}"
