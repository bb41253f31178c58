"""The compiler's schedule of some kernels, against the one that is kept: no slower by 5 %."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.tpu_schedule import CASES, RESULTS, Case, key, measure, table
from miras.analysis.plan import schedule

pytestmark = [pytest.mark.tpu_aot, pytest.mark.multiprocess]

GUARDED = (
    Case("titans_lmm", "float32", 64, 64),
    Case("titans_lmm", "float32", 128, 64),
    Case("titans_lmm memory=matrix", "float32", 128, 64),
    Case("gated_deltanet", "bfloat16", 64, 64),
)


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("case", GUARDED, ids=key)
@pytest.mark.sample(0.5)
def test_no_slower_than_kept(case):
    if not list(Path(sys.prefix, "tpu").glob("libtpu-0.0.42*")):
        pytest.skip("the figures are those of libtpu 0.0.42, which goes with jax 0.10")
    kept, now = json.loads(RESULTS.read_text())[key(case)], measure(case)
    for passes in ("forward", "training", "backward"):
        assert now[passes] <= 1.05 * kept[passes], (passes, now, kept)


def test_the_table_is_that_of_the_figures():
    rows = json.loads(RESULTS.read_text())
    assert list(rows) == [key(case) for case in CASES]
    assert table(rows) in RESULTS.with_suffix(".md").read_text()


def test_bundles_of_loops_count_as_often_as_they_run():
    """A listing as the compiler writes it: a grid's loop, a branch over its first step, a loop."""
    lines = [
        "     0   :  { %1 = smov 0 }",
        "   0x1 LB: > { %2 = sadd 1 }",
        "   0x2   : > { %3 = sbr.rel (%p1) target = $region2 }",
        *(f"   0x{i}   : > {{ delay slot }}" for i in range(3, 7)),
        "   0x7   : > { only in the first step }",
        "   0x8 PF: > { %4 = vld }",
        "   0x9 LB: >> { %5 = vmul }",
        "   0xa   : >> { %6 = sbr.rel (!%p2) target = $region3 }",
        "   0xb PF: > { %7 = vst }",
        "   0xc   :  {}",
    ]
    assert schedule._bundles(lines, [3]) == (1 + 1 + 4 + 1 + 1) + 3 * 2
    with pytest.raises(ValueError, match="has 1 loops in a grid step, not 2"):
        schedule._bundles(lines, [3, 1])
