"""Every preset's kernels for a GPU that need not be there: lowered to Triton, or refused."""

from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

import miras
from miras.config import ConfigError
from tests.backends.pallas.calls import NAMES, call, gradient, shapes

DEVICE = AbstractDevice("NVIDIA H200", None, "cuda")
H200 = AbstractMesh((1,), ("gpu",), (AxisType.Auto,), abstract_device=DEVICE)
FIGURES = Path(__file__).parents[4] / "benchmarks" / "results" / "gpu_static.md"

# Those of which a tile of 16 tokens holds more than fits into registers at a width of 32, in blocks
# of hidden units too.
LARGE = {
    *("dfw", "kda", "rwkv7", "longhorn", "deltaproduct", "mesa"),
    *("gated_deltanet2", "trellis"),
    *("memora", "omeganet", "atlas", "atlas++", "lact", "hope"),
}

BUFFERED = {name for name in NAMES if miras.preset(name).rule.carries(1, 1)}


def lowered(static, arrays, chunk=32, backend="pallas", **options) -> str:
    """The program of a call and its gradients."""
    with jax.sharding.use_abstract_mesh(H200):
        traced = jax.jit(gradient(static, chunk=chunk, backend=backend, **options)).trace(
            shapes(arrays)
        )
        return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sample(0.2)
def test_every_preset(name):
    static, arrays = call(name, T=64, dk=32, dtype=np.float32)
    if name in LARGE:
        with pytest.raises(ConfigError, match="KiB at once on a GPU, where"):
            lowered(static, arrays)
        return
    if name in BUFFERED:
        with pytest.raises(ConfigError, match="GPU kernels carry no buffers of keys"):
            lowered(static, arrays)
        return
    text = lowered(static, arrays)
    assert "miras_forward" in text
    assert "miras_backward" in text


@pytest.mark.parametrize(("name", "dk", "needed"), [("titans_lmm", 128, 301), ("trellis", 64, 260)])
@pytest.mark.sample(0.5)
def test_addresses_and_copies_of_products_count_in_blocks(name, dk, needed):
    """Live values alone are 74 and 104 KiB; the two kernels spill 1,968 and 980 bytes a thread."""
    static, arrays = call(name, T=64, dk=dk, dtype=np.float32)
    with pytest.raises(ConfigError, match=f"{needed} KiB with addresses in blocks of 16 of its "):
        lowered(static, arrays)


@pytest.mark.slow
def test_auto_takes_kernels_where_they_fit():
    for name, kernels in (("titans_lmm", True), ("kda", False)):
        static, arrays = call(name, T=64, dk=32, dtype=np.float32)
        text = lowered(static, arrays, backend="auto")
        assert ("miras_forward" in text) == kernels


def test_an_operation_that_triton_lacks_is_named():
    rule = miras.Rule(memory={"kind": "mlp", "activation": "gelu_exact"}, bias="l2")
    arrays = {"inputs": miras.testing.random_inputs(rule, T=64, dk=16, dtype=np.float32)}
    with pytest.raises(ConfigError, match=r"memory 'mlp' .* uses 'erf', which a GPU kernel"):
        lowered({"rule": rule, "exact": False}, arrays)


def test_double_precision_is_refused():
    static, arrays = call("gated_deltanet", T=64, dk=16)
    with (
        jax.enable_x64(True),
        pytest.raises(ConfigError, match="no GPU kernel computes in float64"),
    ):
        lowered(static, arrays)


def test_fewer_memories_are_kept_by_xla_alone():
    static, arrays = call("deltanet", T=64, dk=16, dtype=np.float32)
    with pytest.raises(ConfigError, match="save the state of every tile, and save_every=2"):
        lowered(static, arrays, save_every=2)


def test_figures_are_of_these_kernels():
    """What the compiler says is kept for what runs as kernels, and nothing spills much."""
    rows = [line.split(" | ") for line in FIGURES.read_text().splitlines() if " | 32 | " in line]
    assert {row[0].strip("| ") for row in rows if "XLA" in row[2]} == LARGE | BUFFERED
    assert {row[0].strip("| ") for row in rows} >= set(NAMES)
    kept = [line.split(" | ") for line in FIGURES.read_text().splitlines() if ", " in line]
    spilled = [row[3] for row in kept if row[0].startswith("| ") and "XLA" not in row[2]]
    assert all(int(bytes) <= 256 for both in spilled for bytes in both.split(", "))
    assert len(spilled) > len(NAMES) - len(LARGE | BUFFERED)
    attention = {(dtype, width) for dtype in ("bfloat16", "float32") for width in (64, 128, 256)}
    assert {(row[0].strip("| "), int(row[1])) for row in kept if len(row) > 1} >= attention
