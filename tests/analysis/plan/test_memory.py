"""Analytic HBM against the compiled steps of `benchmarks/results/meshes.json`."""

import json

import pytest

from benchmarks.meshes import CASES, RESULTS, key
from experiments import plans
from miras.analysis.plan.job import Job
from miras.analysis.plan.memory import state_bytes, step_memory
from miras.analysis.plan.slices import planned_slice
from miras.cli.runs import run_config
from miras.presets import preset
from tests.analysis.plan.jobs import job

ROWS = json.loads(RESULTS.read_text())
CHECKED = [case for case in CASES if key(case) in ROWS and case.slices == 1]


def compared(case) -> float:
    """Analytic over compiled."""
    config = run_config(case.preset, [*case.run, *case.changes], None, rates="raw")
    found = step_memory(Job(config, planned_slice(case.topology)))
    return found.peak / 2**30 / ROWS[key(case)]["peak"]


def test_a_compiled_peak():
    (case,) = (c for c in CHECKED if key(c) == "yaad, v5e:4x4, layers=12 width=768 heads=12")
    assert compared(case) == pytest.approx(1, abs=0.15)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CHECKED, ids=key)
def test_every_compiled_peak(case):
    assert compared(case) == pytest.approx(1, abs=0.15)


def test_the_gallery():
    rows = json.loads(plans.RESULTS.read_text())
    assert list(rows) == [plans.key(case) for case in plans.CASES]
    assert plans.table(rows) in plans.RESULTS.with_suffix(".md").read_text()
    compiled = [
        row for row in rows.values() if row.get("compiled") and not row["compiled"]["error"]
    ]
    assert compiled
    for row in compiled:
        kinds, peak = row["compiled"]["kinds"], row["compiled"]["peak"]
        assert sum(kinds.values()) == pytest.approx(peak, rel=0.03)
        assert row["memory"]["peak"] == pytest.approx(peak, rel=0.15)


def test_the_state_of_a_head():
    """Two float32 weights of 64 x 256; a second state with momentum; lanes of a narrow matrix."""
    assert state_bytes(preset("yaad").rule, 64) == 2 * 64 * 256 * 4
    assert state_bytes(preset("titans_lmm").rule, 64) == 2 * 2 * 64 * 256 * 4
    assert state_bytes(preset("gated_deltanet").rule, 64) == 64 * 128 * 4


def test_what_is_kept_and_what_is_split():
    words = ("layers=4", "width=64", "heads=4", "chunk=16", "sequence=64", "data.batch=4")
    full, kept = (
        step_memory(job("yaad", *words, "vocab=128", f"remat={x}", on="v5e-4"))
        for x in ("full", "none")
    )
    assert kept.inputs > full.inputs
    assert kept.memories == 4 * full.memories  # of all layers, not of one
    alone = step_memory(job("yaad", *words, "vocab=128"))
    assert alone.parameters > 3 * full.parameters
    assert alone.optimiser > 3 * full.optimiser
    assert alone.weights == 0  # nothing is gathered
