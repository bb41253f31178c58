"""FLOPs of a step against counts by hand, and against XLA's where it is right."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from miras.analysis.plan.flops import step_flops
from miras.train.state import structure
from miras.train.step import total_loss
from tests.analysis.plan.jobs import job

# Two layers of width 64 with 4 heads of 16, SwiGLU of 168, 512 tokens a vocabulary, chunks of 16,
# 2 rows of 64 tokens: N = 128 tokens a step.
SIZES = ("layers=2", "width=64", "heads=4", "vocab=512", "chunk=16", "sequence=64", "data.batch=2")
N, LAYERS, WIDTH, HEADS, HEAD, HIDDEN, VOCAB, CHUNK, ROW = 128, 2, 64, 4, 16, 168, 512, 16, 64
LOGITS = 2 * VOCAB * WIDTH
CHANNELS = 3 * 2 * WIDTH * HIDDEN  # gate, up and down of SwiGLU


def of_yaad() -> int:
    """A token's forward pass. The memory of a head is M(x) = x + W2 gelu(W1 x), 16 -> 64 -> 16."""
    matrices = 3 + 1 + 1  # q, k, v; the output gate; the output projection
    gates = 3 * 2 * WIDTH * HEADS  # rate, decay and threshold, a scalar per head
    projections = matrices * 2 * WIDTH**2 + gates + 3 * 2 * 4 * WIDTH  # a convolution over 4 tokens
    weights = HEAD * 64 + 64 * HEAD
    error = 2 * weights  # x W at the snapshot
    back = 2 * 64 * HEAD  # through W2 only: no gradient of the key is needed
    write = 2 * weights  # X^T E
    old = 2 * weights  # x W_0 in the read
    new = 2 * CHUNK * (HEAD + 64) * 2  # (x X^T) E, for each of the two weights
    return projections + HEADS * (error + back + write + old + new)


def of_gated_deltanet() -> int:
    """The memory is a matrix of 16 x 16, exact within the chunk by a triangular system of 16."""
    projections = 5 * 2 * WIDTH**2 + 2 * 2 * WIDTH * HEADS + 3 * 2 * 4 * WIDTH
    errors = 2 * HEAD**2 + 2 * CHUNK * 2 * HEAD  # K W_0, and (K K^T) E
    solve = (2 * CHUNK**2 * HEAD + 4 * CHUNK**3 * 3) / CHUNK  # three products square the inverse
    read = 2 * HEAD**2 + 2 * CHUNK * 2 * HEAD
    write = 2 * HEAD**2
    return projections + HEADS * round(errors + solve + read + write)


def of_transformer() -> int:
    """Queries see (T + 1) / 2 tokens on average; scores and sums take 4 FLOPs a channel each."""
    return 4 * 2 * WIDTH**2 + 4 * WIDTH * (ROW + 1) // 2


@pytest.mark.parametrize(
    ("preset", "mixer"),
    [
        ("yaad", of_yaad),
        ("gated_deltanet", of_gated_deltanet),
        ("transformer++", of_transformer),
    ],
)
def test_a_count_by_hand(preset, mixer):
    found = step_flops(job(preset, *SIZES))
    by_hand = N * (LOGITS + LAYERS * (CHANNELS + mixer()))
    assert found.forward == pytest.approx(by_hand, rel=0.02)
    assert found.model == 3 * found.forward
    assert found.logits == N * LOGITS
    assert found.channels == N * LAYERS * CHANNELS


def test_what_is_recomputed_is_counted_apart():
    plain, full = (step_flops(job("yaad", *SIZES, f"remat={kind}")) for kind in ("none", "full"))
    assert plain.model == full.model
    assert plain.recomputed == 0
    assert full.recomputed == full.projections + full.channels
    assert full.in_memories - plain.in_memories == full.memory


def test_xlas_count_of_a_step_without_loops():
    """One layer, one chunk of the loss and attention in one piece: each loop has one pass."""
    found = job("transformer++", "layers=1", "width=64", "heads=2", "sequence=32", "data.batch=2")
    graphdef, params = structure(found.config.model)
    shape = (2, 32)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype)
        for name, dtype in (
            ("inputs", jnp.int32),
            ("targets", jnp.int32),
            ("segment_ids", jnp.int32),
            ("mask", jnp.bool_),
            ("target_bytes", jnp.float32),
        )
    }
    run = jax.jit(lambda params, batch: total_loss(graphdef, params, batch)[0])
    cost = run.lower(nnx.to_pure_dict(params), batch).cost_analysis()
    assert cost is not None
    attention = step_flops(found).attention  # XLA computes the masked half, too
    assert cost["flops"] == pytest.approx(step_flops(found).forward + attention, rel=0.1)


def test_the_values_of_the_first_layer_are_counted_twice():
    words = ("layer.conv=0", "layer.gate_rank=4")
    plain = step_flops(job("rwkv7", *SIZES, *words))
    mixed = step_flops(job("rwkv7", *SIZES, *words, "layer.value_residual=true"))
    shares = LAYERS * (2 * 4 * WIDTH + WIDTH)  # of rank 4, with a bias
    assert mixed.projections - plain.projections == N * 2 * (shares + WIDTH**2)
