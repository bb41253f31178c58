"""Learning curves over seeds, and what a run logs of them."""

import dataclasses

import pytest

from miras.analysis.ablate import report
from miras.analysis.ablate.cell_costs import CellCosts
from miras.analysis.ablate.curves import cell_curves, x_axis
from miras.analysis.ablate.curves_plot import plot_curves
from miras.analysis.ablate.measurements import measurements
from miras.analysis.ablate.outcome import Outcome, read_outcome
from miras.analysis.ablate.results import summarise
from tests.analysis.ablate.test_results import T1, outcomes


def test_what_a_run_has_logged():
    lines = [
        {"step": 0, "kind": "start", "devices": 1},
        {"step": 10, "kind": "train", "tokens_per_second": 1.0, "model_flops_utilization": 0.01},
        {"step": 20, "kind": "train", "tokens_per_second": 8.0, "model_flops_utilization": 0.3},
        {"step": 20, "kind": "held_out", "bits_per_byte": 3.5, "loss": 2.0},
        {"step": 30, "kind": "train", "tokens_per_second": 10.0, "model_flops_utilization": None},
        {"step": 30, "kind": "held_out", "bits_per_byte": None, "accuracy": 0.5},
    ]
    found = measurements(lines)
    assert found.tokens_per_second == 9.0  # the median of the later two
    assert found.utilization == 0.3
    assert found.curve == ((20, {"bits_per_byte": 3.5, "loss": 2.0}), (30, {"accuracy": 0.5}))
    assert measurements([]) == (None, None, ())


def test_outcomes_of_before_and_of_now_are_read(tmp_path):
    old = '{"config_hash": "a", "status": "done", "bits_per_byte": 2.0}'
    (tmp_path / "outcome.json").write_text(old)
    assert read_outcome(tmp_path, "a") == Outcome("a", "done", None, 2.0)
    new = Outcome("a", "done", None, 2.0, curve=((1, {"loss": 3.0}), (2, {"loss": 2.0})))
    (tmp_path / "outcome.json").write_text(new.to_json())
    assert read_outcome(tmp_path, "a") == new
    (tmp_path / "outcome.json").write_text('"text"')
    assert read_outcome(tmp_path, "a") is None


def with_curves(grid, values, curves):
    """Outcomes whose curve of cell c and seed s is `curves[c][s]`, bits by step."""
    found = outcomes(grid, values)
    for number, run in enumerate(grid.runs):
        curve = curves[run.cell][number // len(grid.cells)]
        points = tuple((step, {"bits_per_byte": bits}) for step, bits in curve.items())
        found[run] = dataclasses.replace(found[run], curve=points)
    return found


def test_curves_are_means_over_seeds_and_differences_are_paired(make):
    grid = make("bias=huber,l2")
    curves = [[{1: 4.0, 2: 3.0}, {1: 6.0, 2: 5.0}], [{1: 4.5, 2: 2.0}, {1: 6.7, 2: 4.2}]]
    results = summarise(grid, with_curves(grid, [[3.0, 5.0], [2.0, 4.2]], curves))
    found = {curve.cell.levels["bias"]: curve for curve in cell_curves(results)}
    base, other = found["huber"], found["l2"]
    assert base.x == other.x == (1, 2)
    assert [value.mean for value in base.values] == [5, 4]
    assert base.values[0].half == pytest.approx(T1)
    assert base.differences == ()
    assert [value.mean for value in other.differences] == pytest.approx([0.6, -0.9])
    assert other.differences[0].half == pytest.approx(T1 * 0.1)
    assert plot_curves(results).startswith(b"\x89PNG")
    assert "![learning curves](curves.png)" in report.markdown(results)


def test_seeds_that_lack_a_step_and_runs_that_diverged(make):
    grid = make("bias=huber,l2")
    curves = [[{1: 4.0, 2: 3.0}, {1: 6.0}], [{1: 4.5, 2: 2.0}, {1: 9.0}]]
    results = summarise(grid, with_curves(grid, [[3.0, 5.0], [2.0, None]], curves))
    found = {curve.cell.levels["bias"]: curve for curve in cell_curves(results)}
    assert found["huber"].x == (1,)
    assert found["l2"].x == (1, 2)
    assert found["l2"].values[1] == (2.0, None)


def costs(steps, tokens, flops):
    return CellCosts(1, 1, flops, tokens, steps, ())


@pytest.mark.parametrize(
    ("of_cells", "axis", "units"),
    [
        ([(4, 8, 10.0), (4, 8, 99.0)], "step", (1, 1)),
        ([(4, 8, 10.0), (8, 4, 5.0)], "tokens", (8, 4)),
        ([(4, 8, 10.0), (2, 8, 20.0)], "training FLOPs", (10, 20)),
    ],
)
def test_the_axis_is_what_cells_spend_alike(make, of_cells, axis, units):
    grid = make("bias=huber,l2", seeds=1)
    curves = [[{1: 4.0, 2: 3.0}], [{1: 4.5, 2: 2.0}]]
    found = with_curves(grid, [[3.0], [2.0]], curves)
    results = summarise(grid, found, [costs(*cell) for cell in of_cells])
    assert x_axis(results) == axis
    by_name = {curve.cell.levels["bias"]: curve for curve in cell_curves(results)}
    assert by_name["huber"].x == (units[0], 2 * units[0])
    assert by_name["l2"].x == (units[1], 2 * units[1])
    assert bool(by_name["l2"].differences) == (units[0] == units[1])


def test_tables_while_runs_are_missing(make):
    grid = make("bias=huber,l2")
    some = outcomes(grid, [[2.0, 3.0], [2.5, 3.5]])
    del some[grid.runs[3]]
    told = report.markdown(summarise(grid, some))
    assert "3 of 4 runs have ended." in told
    assert "+0.5000 |" in told  # of the seed that both have
    assert "plot.png" not in told
    assert "have ended" not in report.markdown(summarise(grid, outcomes(grid, [[2, 3], [4, 5]])))
