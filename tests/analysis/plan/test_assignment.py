"""What is live at the peak of a compiled step, and of which kind it is."""

import os

import pytest

from miras.analysis.plan.assignment import Buffer, at_peak
from miras.analysis.plan.compiled import compiled, why_not
from miras.analysis.plan.kinds import KINDS, by_kind
from tests.analysis.plan.jobs import job

WORDS = ("layers=2", "width=64", "heads=4", "vocab=512", "chunk=16", "sequence=64", "data.batch=2")

ASSIGNED = """BufferAssignment:
allocation 0: size 4096, parameter 0, shape |f32[32,32]| at ShapeIndex {}, maybe-live-out:
 value: <1 param.7 @0> (size=4096,offset=0): f32[32,32]{1,0}
 value: <9 copy.3 @0> (size=4096,offset=0): f32[32,32]{1,0}
allocation 1: size 1000, preallocated-temp:
 value: <2 fusion.1{0} @0> (size=600,offset=0): bf16[300]{0}
 value: <3 while.2{1} (phi) @0> (size=600,offset=0): bf16[300]{0}
 value: <4 fusion.4 @0> (size=500,offset=500): f32[125]{0}
 value: <5 late @0> (size=900,offset=0): f32[225]{0}
allocation 2: size 800, color 1, preallocated-temp:
 value: <6 in_vmem @1> (size=800,offset=0): f32[200]{0}
"""
RANGES = """  BufferLiveRange:
    fusion.1{0}:1-5
    while.2{1}:2-5
    fusion.4{}:3-6
    late{}:7-9
    in_vmem{}:1-9
"""
PROGRAM = """ENTRY %main {
  %param.7 = f32[32,32] parameter(0), metadata={op_name="state.params[\\'w\\']"}
  %while.2 = (s32[], bf16[300]) while(%t), metadata={op_name="jit(step)/while"}
  %fusion.4 = f32[125] fusion(%x), kind=kLoop, metadata={op_name="jit(step)/dot"}
}
"""


def test_bytes_that_are_shared_count_once(tmp_path):
    stem = "module_0000.jit_step.after_optimizations"
    (tmp_path / f"{stem}-buffer-assignment.txt").write_text(ASSIGNED)
    (tmp_path / f"{stem}-live-range.txt").write_text(RANGES)
    (tmp_path / f"{stem}_after_buffer_assignment.txt").write_text(PROGRAM)
    argument, *live = at_peak(tmp_path)
    assert argument == Buffer(4096, "f32", (32, 32), "state.params['w']", True)
    # At 3 the loop's value lies where its input lies, and the last 100 bytes of it are shared too.
    assert sum(buffer.bytes for buffer in live) == 1000
    assert {buffer.source for buffer in live} <= {"", "jit(step)/while", "jit(step)/dot"}


@pytest.mark.parametrize(
    ("buffer", "kind"),
    [
        (Buffer(1, "f32", (64, 64), "state.params['x']", True), "parameters"),
        (Buffer(1, "f32", (64, 64), "state.opt_state.mu['x']", True), "optimiser"),
        (Buffer(1, "s32", (1, 2, 64), "batches['inputs']", True), "batches"),
        (Buffer(1, "f32", (2, 2, 64, 64), "while", False), "inputs"),
        (Buffer(1, "f32", (512, 64), "scatter", False), "gradients"),
        (Buffer(1, "bf16", (64, 168), "convert", False), "weights"),
        (Buffer(1, "f32", (128, 512), "dot", False), "loss"),
        (Buffer(1, "f32", (4, 2, 4, 16, 64), "miras_forward/pallas_call", False), "memories"),
        (Buffer(1, "bf16", (2, 64, 3, 4, 17), "add", False), "activations"),
    ],
)
def test_kinds(buffer, kind):
    found = by_kind([buffer], job("yaad", *WORDS))
    assert found == {name: int(name == kind) for name in KINDS}


def test_what_no_compiler_takes():
    assert "analytic only" in why_not(job("yaad", *WORDS, on="h100-1"))


@pytest.mark.exhaustive
@pytest.mark.tpu_aot
@pytest.mark.multiprocess
@pytest.mark.usefixtures("libtpu")
def test_the_kinds_of_a_compiled_step_add_up_to_its_peak(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path))
    words = ("layers=2", "width=256", "heads=4", "chunk=64", "sequence=512", "dtype=bfloat16")
    run = job("yaad", *words, "vocab=1024", "data.batch=16", on="v5e-4")
    found = compiled(run)
    assert not found.error
    assert sum(found.kinds.values()) == pytest.approx(found.peak, rel=0.03)
    for kind in ("parameters", "optimiser", "memories", "activations", "gradients"):
        assert found.kinds[kind] > 0
    assert {x["kind"] for x in found.collectives} >= {"all-gather", "all-reduce"}
    (kept,) = (tmp_path / "plans").iterdir()
    before = os.stat(kept)
    assert compiled(run) == found  # from the cache
    assert os.stat(kept) == before
