"""Differences to the base, their correction and their power, against SciPy and values by hand."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from miras.analysis.ablate import records, report
from miras.analysis.ablate.notes import notes
from miras.analysis.ablate.paired import (
    corrected,
    detectable,
    difference,
    holm,
    pooled_spread,
)
from miras.analysis.ablate.results import summarise
from tests.analysis.ablate.test_results import outcomes

_RNG = np.random.default_rng(0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_a_difference_is_that_of_scipys_paired_t_test(seeds):
    base, cell = _RNG.normal(size=(2, seeds))
    found = difference(cell, base)
    expected = stats.ttest_rel(cell, base)
    low, high = expected.confidence_interval(0.95)
    assert found.estimate.mean == pytest.approx(np.mean(cell - base), rel=1e-12)
    assert found.estimate.half == pytest.approx((high - low) / 2, rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.seeds == seeds
    assert found.spread == pytest.approx(np.std(cell - base, ddof=1), rel=1e-12)


def test_seeds_that_one_of_the_two_lacks_are_left_out():
    found = difference([1.0, math.nan, 4.0, 6.0], [0.5, 1.0, math.nan, 5.0])
    assert found.seeds == 2
    assert found.estimate.mean == pytest.approx(0.75)
    assert difference([math.nan, 1.0], [1.0, math.nan]) is None
    alone = difference([1.0, math.nan], [0.5, 2.0])
    assert alone.estimate == (0.5, None)
    assert (alone.p, alone.holm, alone.significant) == (None, None, False)


def test_differences_that_do_not_vary():
    assert difference([2.0, 3.0], [1.0, 2.0]).p == 0
    assert difference([1.0, 2.0], [1.0, 2.0]).p == 1


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and no value below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@settings(max_examples=60, deadline=None)
@given(p=st.lists(st.floats(0, 1), max_size=12), seed=st.integers(0, 99))
def test_holm_keeps_the_order_and_rejects_what_the_step_down_test_rejects(p, seed):
    found = np.array(holm(p))
    assert ((found >= p) & (found <= 1)).all()
    assert (found <= np.minimum(1, len(p) * np.array(p))).all()  # never above Bonferroni's
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    rejected = set()
    for place, n in enumerate(order):  # the test as Holm states it
        if p[n] * (len(p) - place) > 0.05:
            break
        rejected.add(n)
    assert {n for n in range(len(p)) if found[n] <= 0.05} == rejected
    shuffled = np.random.default_rng(seed).permutation(len(p))
    np.testing.assert_array_equal(holm([p[n] for n in shuffled]), found[shuffled])


def test_only_cells_that_are_tested_count_in_the_correction():
    one, two = difference([1.0, 2.1], [0.0, 1.0]), difference([1.0, 9.0], [0.0, 1.0])
    single = difference([1.0], [0.0])
    made = corrected([None, one, single, two])
    assert made[0] is None
    assert made[2] == single
    assert made[1].holm == pytest.approx(2 * one.p)
    assert made[3].holm == pytest.approx(max(2 * one.p, two.p))


def test_the_pooled_spread_weighs_by_degrees_of_freedom():
    one = difference([1.0, 3.0], [0.0, 0.0])  # variance 2, 1 degree
    two = difference([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])  # variance 1, 2 degrees
    assert pooled_spread([one, None, two]) == pytest.approx(math.sqrt(4 / 3))
    assert pooled_spread([None, difference([1.0], [0.0])]) is None


@pytest.mark.parametrize("seeds", [3, 5, 10, 30])
def test_the_smallest_effect_has_the_power_of_the_noncentral_t(seeds):
    shift = detectable(0.3, seeds) / 0.3 * math.sqrt(seeds)
    limit = stats.t.ppf(0.975, seeds - 1)
    power = stats.nct.sf(limit, seeds - 1, shift) + stats.nct.cdf(-limit, seeds - 1, shift)
    assert power == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_smallest_effect_is_found_in_four_of_five_samples(seeds):
    samples = detectable(2.0, seeds, 0.05) + 2 * _RNG.normal(size=(100_000, seeds))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=5 * math.sqrt(0.8 * 0.2 / 1e5))


@settings(max_examples=25, deadline=None)
@given(seeds=st.integers(2, 30), alpha=st.floats(1e-4, 0.2), power=st.floats(0.3, 0.95))
def test_more_seeds_see_smaller_effects(seeds, alpha, power):
    here = detectable(1.0, seeds, alpha, power)
    assert detectable(1.0, seeds + 1, alpha, power) < here
    assert detectable(1.0, seeds, alpha / 2, power) > here
    assert detectable(3.0, seeds, alpha, power) == pytest.approx(3 * here)


def test_the_base_is_the_cell_that_is_the_preset(make):
    grid = make("bias=l2,lp,huber", "chunk=8,16", "steps=3")
    assert grid.cells[grid.base].name == "bias=huber, chunk=16"  # yaad's
    assert not grid.without_preset
    assert make("bias=l2,lp", "memory=matrix").without_preset


def test_a_grid_without_the_preset_compares_with_its_first_cell_and_warns(make):
    grid = make("bias=l2,lp", seeds=3)
    assert (grid.base, grid.without_preset) == (0, True)
    told = list(notes(summarise(grid, outcomes(grid, [[1.0, 2.0, 3.0], [1.5, 2.5, 3.1]]))))
    assert any("Warning: no cell is the preset yaad" in line for line in told)
    assert not any("preset" in line for line in notes(summarise(make("bias=l2,huber"), {})))


def test_the_table_begins_with_the_differences(make):
    grid = make("bias=huber,l2,lp", seeds=3)
    values = [[2.0, 3.0, 4.0], [2.5, 3.6, 4.4], [1.9, 3.3, None]]
    results = summarise(grid, outcomes(grid, values))
    rows = {row.cell.levels["bias"]: row for row in results.rows}
    assert rows["huber"].difference is None
    l2, lp = rows["l2"].difference, rows["lp"].difference
    p = stats.ttest_rel(values[1], values[0]).pvalue, stats.ttest_rel([1.9, 3.3], [2, 3]).pvalue
    assert (l2.p, lp.p) == pytest.approx(p)
    assert (l2.holm, lp.holm) == pytest.approx((2 * p[0], max(2 * p[0], p[1])))
    assert l2.significant
    assert not lp.significant
    spread = math.sqrt((2 * 0.1**2 + np.var([-0.1, 0.3], ddof=1)) / 3)
    assert results.spread == pytest.approx(spread)

    told = report.markdown(results)
    head = "| rank | bias | difference to base | p (Holm) | bits per byte |"
    assert head in told
    assert "| 2 | l2 | +0.5000 ± 0.2484 | 0.026 | 3.5000 ± 2.3697 |" in told
    assert "corrected for 2 cells by Holm's method" in told
    assert f"standard deviation of {spread:.2g}" in told
    assert f"a true difference of {detectable(spread, 3):.2g} bits per byte" in told
    assert f"under the correction, {detectable(spread, 3, 0.025):.2g})" in told

    table = list(csv.DictReader(io.StringIO(records.table_csv(results))))
    (line,) = (line for line in table if line["bias"] == "l2")
    assert float(line["difference"]) == l2.estimate.mean
    assert float(line["difference_half_interval"]) == l2.estimate.half
    assert (float(line["p"]), float(line["p_holm"])) == (l2.p, l2.holm)
    assert line["difference_seeds"] == "3"


def test_of_one_seed_nothing_can_be_said(make):
    grid = make("bias=huber,l2", seeds=1)
    results = summarise(grid, outcomes(grid, [[1.0], [2.0]]))
    told = report.markdown(results)
    assert "Nothing can be said of differences between cells that have one seed" in told
    assert "p (Holm)" not in told
    assert "+1.0000 |" in told
    assert results.spread is None
