"""HBM of a chip at the peak of a train step, by kind, from shapes alone.

Three moments can be the peak: the backward pass of a block, inside the loop over layers; the loss;
and the update of the parameters. All of them have the training state. The first two have what the
forward pass stores for the backward pass, and the first the gradients of all layers and all that
one block computes anew.

The arrays of a block that are live at once were read from the compiler's buffer assignment of the
steps of `benchmarks/results/meshes.md`, at the peak: the compiler fuses what is elementwise, so
that few of the arrays in the source exist. `tests/analysis/plan/test_memory.py` compares the sums.
"""

import functools
import math
from typing import NamedTuple

import jax

from miras.analysis.plan.job import Job, mixers
from miras.backends.pallas.tpu.plan import LIMITS
from miras.backends.xla.loop import checkpoint_interval
from miras.config.base import Config
from miras.engine.state import initial_state
from miras.mixers.base import MixerConfig
from miras.train.token_chunks import chunks_of

ERROR = (
    0.15  # of the estimate against the compiler's peak, at most: tests/analysis/plan/test_memory.py
)
_LANES = 128
# Arrays of a block of the size of its input, that are live when a memory's backward pass begins:
# the input, norms, the read, the output gate, and cotangents of the residual stream.
_STREAMS = 7


class MemoryUse(NamedTuple):
    """Bytes of a chip at the peak.

    Attributes:
        parameters: the parameters.
        optimiser: the state of the optimiser.
        gradients: of all parameters; twice while batches accumulate.
        inputs: what the forward pass stores of every block for the backward pass.
        memories: states of memories that a backward pass starts from.
        activations: what one block computes anew.
        weights: of one layer, or the embedding, gathered from the chips that share them.
        loss: logits of a chunk of tokens, or what else the head returns, and the head's gradient.
    """

    parameters: int
    optimiser: int
    gradients: int
    inputs: int
    memories: int
    activations: int
    weights: int
    loss: int

    @property
    def peak(self) -> int:
        """All of them."""
        return sum(self)


def step_memory(job: Job) -> MemoryUse:
    """HBM of a chip at the peak of a step; what is not live then is 0."""
    at = (_in_backward(job), _in_loss(job), _in_update(job))
    return max(at, key=lambda memory: memory.peak)


def _state(job: Job) -> dict[str, int]:
    return {"parameters": job.local("params"), "optimiser": job.local("opt_state")}


def _gradients(job: Job) -> int:
    held = sum(leaf.local // _itemsize(leaf) * 4 for leaf in job.leaves if leaf.path[0] == "params")
    return held * (2 if job.config.train.accumulate > 1 else 1)


def _in_backward(job: Job) -> MemoryUse:
    blocks = [(block, heads) for block, heads in job.blocks()]
    kept = job.remat in ("minimal", "save_memory_outputs", "none")
    memories = [_states(job, block, heads) for block, heads in blocks]
    # The gradient of a head that reads chunks of tokens is summed apart from the parameters'.
    head = job.head.inputs * job.head.outputs * 4 // job.sizes["tensor"] * job.head.by_token
    return MemoryUse(
        **_state(job),
        gradients=_gradients(job) + head,
        inputs=_inputs(job),
        memories=job.groups * sum(memories) if kept else max(memories),
        activations=max(_activations(job, block, heads) for block, heads in blocks),
        weights=_gathered(job),
        loss=0,
    )


def _in_loss(job: Job) -> MemoryUse:
    number = 1
    if job.head.by_token:
        number = chunks_of(job.tokens, job.outputs, job.config.train.loss_chunk)
    logits = math.ceil(job.head_reads / number) * job.outputs
    head = job.outputs * job.head.inputs
    kept = job.remat in ("minimal", "save_memory_outputs", "none")
    states = sum(_states(job, block, heads) for block, heads in job.blocks())
    return MemoryUse(
        **_state(job),
        gradients=_gradients(job) // 2 if job.config.train.accumulate > 1 else 0,
        inputs=_inputs(job),
        memories=job.groups * states if kept else 0,
        activations=2 * job.tokens * job.config.model.width * job.itemsize,
        weights=0,  # the head fits into VMEM, or is gathered in parts
        loss=(logits + head) * 4,
    )


def _in_update(job: Job) -> MemoryUse:
    updates = sum(
        leaf.local // _itemsize(leaf) * 4 for leaf in job.leaves if leaf.path[0] == "params"
    )
    gradients = _gradients(job)
    return MemoryUse(
        **_state(job),
        gradients=gradients + updates,
        inputs=0,
        memories=0,
        activations=0,
        weights=0,
        loss=0,
    )


def block_bytes(job: Job) -> float:
    """Bytes of the arrays that one pass of a block makes on a chip, on average over the pattern."""
    whole = 0.0
    for block, heads in job.blocks():
        # What a loop over segments keeps is written in one pass and read in another, of four.
        whole += _activations(job, block, heads) / (4 if block.mixer.loops else 1)
    return whole / len(job.config.model.letters)


def saved_bytes(job: Job) -> int:
    """Bytes of the states that one turn of the loop over layers saves on a chip."""
    return sum(_states(job, block, heads) for block, heads in job.blocks())


def _inputs(job: Job) -> int:
    """What is stored of every block: its input, and more where less is recomputed."""
    model = job.config.model
    stream = job.tokens * model.width * job.itemsize
    own = 1 / job.sizes["tensor"]  # of a block's input, by its tokens
    streams = 0.0
    for block, _ in job.blocks():
        made = _matrices(job, block)
        streams += {
            "full": own,
            "offload": own,
            "save_memory_outputs": own + 1,
            "minimal": own + 1 + made,
            "none": own + 2 + 2 * made + _STREAMS,
        }[job.remat]
    return round(job.groups * streams * stream)


def _matrices(job: Job, block: MixerConfig) -> float:
    """Results of a block's products, in arrays of the size of its input."""
    width = job.config.model.width
    number = len(job.config.model.letters)
    kernels = [leaf for leaf in job.layer_leaves if leaf.path[-1] == "kernel"]
    return sum(leaf.size for leaf in kernels) / (job.groups * number * width**2)


def _hidden(job: Job) -> float:
    """Channels of the channel mixers' hidden layers over the width, of a block on average."""
    width, letters = job.config.model.width, job.config.model.letters
    size = sum(leaf.size for leaf in job.layer_leaves if leaf.path[4] == "mlp")
    return size / 3 / (job.groups * len(letters) * width**2) / job.sizes["tensor"]


def _activations(job: Job, block: MixerConfig, heads: int) -> int:
    """Of one block in its backward pass."""
    width, split = job.config.model.width, job.sizes["tensor"]
    stream = job.tokens * width * job.itemsize
    whole = _STREAMS * stream + 3 * _hidden(job) * stream
    if block.mixer.loops:  # over segments, which the backward pass computes anew one by one: the
        return round(whole + 2 * (1 + _hidden(job)) * stream)  # channel mixer's arrays are the most
    for config, inner, own in mixers(block, width, heads):
        head = inner // own
        padded = math.ceil(head / _LANES) * _LANES / head
        of_heads = job.tokens * inner * job.itemsize / split
        whole += 3 * of_heads  # q, k and v
        whole += 6 * padded * of_heads  # in a kernel's layout, with their cotangents
        if any(rule.memory.token_cache is None for rule in config.mixer.rules(config)):
            whole += 3 * of_heads  # before the convolution
            whole += padded * of_heads  # cotangent of the read
        else:
            whole -= stream  # attention has no output gate
            if job.head.masked:
                whole += _scores(job, own)
    return round(whole)


def _scores(job: Job, heads: int) -> float:
    """One float32 array of the scores of attention that is not fused, which is live at the peak."""
    pairs = job.rows * job.config.data.sequence**2 / job.sizes["seq"]
    return pairs * heads / job.sizes["tensor"] * 4


def _gathered(job: Job) -> int:
    """The weights of a layer where they are split, in the dtype of the activations."""
    if job.sizes["fsdp"] == 1:
        return 0
    kernels = [leaf for leaf in job.layer_leaves if "fsdp" in leaf.split]
    return sum(
        leaf.size
        // job.groups
        * job.itemsize
        // (job.sizes["tensor"] if "tensor" in leaf.split else 1)
        for leaf in kernels
    )


def _states(job: Job, block: MixerConfig, heads: int) -> int:
    """States of a block's memories that its backward pass starts from."""
    whole = 0
    for config, width, own in mixers(block, job.config.model.width, heads):
        for rule in config.mixer.rules(config):
            if rule.memory.token_cache is None:
                whole += _saved(job, config, rule, width // own, own)
    return whole


def _saved(job: Job, config: MixerConfig, rule: Config, head: int, heads: int) -> int:
    sequence, chunk = job.config.data.sequence, config.chunk
    tiles = math.ceil(sequence / chunk)
    each = state_bytes(rule, head, config.refine)
    of_chip = job.rows * heads / (job.sizes["tensor"] * job.sizes["seq"]) * each
    if config.mixer.loops:  # over segments, and keeps the memory before each
        tiles, interval = math.ceil(sequence / config.attention.segment), 1
    elif config.save_every is not None:
        interval = checkpoint_interval(config.save_every, tiles, 1)
    elif job.slice.chip.kind == "tpu":  # as the plan of a kernel groups tiles
        wanted = math.ceil(tiles * of_chip / LIMITS.saved)
        interval = max(1, min(tiles, wanted, LIMITS.tokens // chunk if wanted <= 1 else wanted))
    else:
        interval = 1
    return round(math.ceil(tiles / interval) * of_chip)


@functools.lru_cache(maxsize=64)
def state_bytes(rule, head: int, refine: int = 0) -> int:
    """Bytes of one head's state between chunks, as a TPU lays it out: float32, whole lanes.

    Args:
        rule: the four parts.
        head: width of the head.
        refine: of the scan.
    """

    def state():
        weights = rule.memory.init(jax.random.key(0), head, head)
        starts = {name: leaf[None] for name, leaf in weights.items()}
        return initial_state(rule, starts, 1, head, head, refine=refine)

    made = jax.eval_shape(state)
    # At the edge of a chunk the snapshot and what is read follow from the dual state.
    kept = jax.tree.leaves((made.A, made.S, made.V, made.carried))
    return sum(_laid_out(leaf.shape) * 4 for leaf in kept)


def _laid_out(shape: tuple[int, ...]) -> int:
    """Entries with one of the last two dimensions in whole lanes, whichever takes fewer."""
    *batch, rows, columns = shape
    lanes = lambda n: math.ceil(n / _LANES) * _LANES  # noqa: E731
    return math.prod(batch) * min(rows * lanes(columns), columns * lanes(rows))


def _itemsize(leaf) -> int:
    return max(1, leaf.bytes // max(leaf.size, 1))
