"""Means, intervals and effects, against values worked out by hand."""

import csv
import io
import json
import math

import pytest

from miras.analysis.ablate import records, report
from miras.analysis.ablate.estimate import estimate
from miras.analysis.ablate.outcome import Outcome
from miras.analysis.ablate.plot import plot
from miras.analysis.ablate.results import summarise
from miras.config import config_hash

T2 = 4.302652729749464  # Student's t with 2 degrees of freedom at 0.975, from tables
T1 = 12.706204736174707  # with 1


def outcomes(grid, scores):
    """Outcomes of the values [cell][seed], bits or accuracies; None diverged."""
    made = {}
    for number, run in enumerate(grid.runs):
        value = scores[run.cell][number // len(grid.cells)]
        status, reason = ("done", None) if value is not None else ("diverged", "step 1: NaN")
        made[run] = Outcome(
            config_hash(run.config), status, reason, value, value, 2, 1.5, None, 100
        )
    return made


def found(grid, bits):
    return summarise(grid, outcomes(grid, bits))


def effects(results):
    return {(e.axis, e.level): e.effect and e.effect.mean for e in results.effects}


def test_a_mean_and_its_interval():
    mean, half = estimate([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(T2 * 1 / math.sqrt(3), rel=1e-9)
    assert estimate([1.0, 2.0]) == (1.5, pytest.approx(T1 * 0.5, rel=1e-9))
    assert estimate([7.0]) == (7.0, None)


def test_cells_are_ranked_and_compared_seed_by_seed(make):
    grid = make("bias=l2,lp,huber", seeds=3)
    results = found(grid, [[3.0, 4.0, 5.0], [2.0, 3.0, 4.1], [3.0, None, 3.0]])
    best, second, incomplete = results.rows
    assert [row.cell.levels["bias"] for row in results.rows] == ["lp", "l2", "huber"]
    assert [row.rank for row in results.rows] == [1, 2, None]
    assert best.score.mean == pytest.approx(9.1 / 3)
    # Differences 1, 1, 0.9: their spread is far below that of the cells themselves.
    assert second.gap.mean == pytest.approx(2.9 / 3)
    assert second.gap.half == pytest.approx(T2 * (0.1 / math.sqrt(3)) / math.sqrt(3))
    assert best.gap == (0, 0)
    assert incomplete.values == (3.0, 3.0)
    assert incomplete.gap is None
    assert results.complete == 2


def test_cells_of_a_task_are_compared_by_the_answers_that_are_right(make):
    grid = make("bias=l2,lp,huber", "task=mqar", seeds=2)
    results = found(grid, [[0.5, 0.25], [0.75, 1.0], [0.5, 0.5]])
    assert [row.cell.levels["bias"] for row in results.rows] == ["lp", "huber", "l2"]
    assert [row.gap.mean for row in results.rows] == [0, 0.375, 0.5]
    assert effects(results)["bias", "lp"] == pytest.approx(7 / 24)
    told = report.markdown(results)
    for words in (
        "| rank | bias | difference to base | p (Holm) | token accuracy |",
        "| 2 | huber | base | – | 0.5000 ± 0.0000 |",
        "Held-out token accuracy, higher is better; ",
        "Positive is better.",
    ):
        assert words in told
    assert "bits per byte" not in told
    assert "rank,cell,bias,status,difference," in records.table_csv(results)
    assert plot(results).startswith(b"\x89PNG")


def test_balanced_effects_are_differences_of_means(make):
    grid = make("bias=l2,lp", "chunk=8,16", seeds=2)
    # Cells in order: (l2, 8), (l2, 16), (lp, 8), (lp, 16).
    results = found(grid, [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [4.0, 6.0]])
    assert results.balanced
    assert results.grand_mean == pytest.approx(1.25)
    assert effects(results) == {
        ("bias", "l2"): pytest.approx(-1.25), ("bias", "lp"): pytest.approx(1.25),
        ("chunk", "8"): pytest.approx(-1.25), ("chunk", "16"): pytest.approx(1.25),
    }  # fmt: skip
    # By seed the effect is 1 and 1.5: mean 1.25, standard error 0.25.
    assert results.effects[1].effect.half == pytest.approx(T1 * 0.25)
    assert results.effects[1].cells == 2
    # Cell means 0, 0, 0, 5 about their fit -1.25, 1.25, 1.25, 3.75: 1 - 6.25 / 18.75.
    assert results.explained == pytest.approx(2 / 3)


def test_unbalanced_effects_are_those_of_the_additive_model(make):
    """Of three cells 1, 2, 4 the additive model has 5 for the fourth."""
    grid = make("bias=l2,lp", "chunk=8,16", seeds=2)
    results = found(grid, [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0], [None, 9.0]])
    assert not results.balanced
    assert results.complete == 3
    assert results.grand_mean == pytest.approx(3)
    assert effects(results) == {
        ("bias", "l2"): pytest.approx(-1.5), ("bias", "lp"): pytest.approx(1.5),
        ("chunk", "8"): pytest.approx(-0.5), ("chunk", "16"): pytest.approx(0.5),
    }  # fmt: skip
    assert results.adjusted(results.effects[0]) == pytest.approx(1.5)
    assert results.explained is None  # as many effects as cells
    assert any("the design is unbalanced" in note for note in report.notes(results))


def test_what_cells_cannot_tell_is_not_told(make):
    grid = make("bias=l2,lp", "chunk=8,16", seeds=1)
    diagonal = found(grid, [[1.0], [None], [None], [3.0]])
    assert set(effects(diagonal).values()) == {None}
    one_level = found(grid, [[1.0], [2.0], [None], [None]])
    assert one_level.balanced  # of the levels that are there
    assert effects(one_level) == {
        ("bias", "l2"): None, ("bias", "lp"): None,
        ("chunk", "8"): pytest.approx(-0.5), ("chunk", "16"): pytest.approx(0.5),
    }  # fmt: skip
    nothing = found(grid, [[None], [None], [None], [None]])
    assert nothing.grand_mean is None
    assert nothing.rows[0].score is None
    report.markdown(nothing)
    assert plot(nothing)


def test_three_levels_add_up_to_nothing(make):
    grid = make("bias=l2,lp,huber", "chunk=8,16", seeds=1)
    results = found(grid, [[1.0], [3.0], [2.0], [4.0], [6.0], [8.0]])
    assert [e.effect.mean for e in results.effects[:3]] == pytest.approx([-2, -1, 3])
    assert [e.effect.mean for e in results.effects[3:]] == pytest.approx([-1, 1])
    assert results.effects[0].effect.half is None
    assert results.explained == pytest.approx(1)


def test_runs_that_are_missing_are_left_out(make):
    grid = make("bias=l2,lp", seeds=1)
    some = outcomes(grid, [[1.0], [2.0]])
    del some[grid.runs[1]]
    assert summarise(grid, some).complete == 1


@pytest.fixture
def results(make):
    """A grid with an illegal cell and a run that diverged."""
    grid = make("memory=mlp,matrix", "optim=gd,newton", "bias=l2", "retention=none", seeds=2)
    return found(grid, [[2.0, 2.5], [3.0, 3.5], [1.0, None]])


def test_lines_for_programs(results):
    grid = results.grid
    lines = [json.loads(x) for x in records.jsonl(grid, results.outcomes).splitlines()]
    assert len(lines) == 6
    assert lines[0]["assignments"] == {
        "memory": "mlp", "algorithm": "gd", "bias": "l2", "retention": "none",
    }  # fmt: skip
    assert [x["bits_per_byte"] for x in lines] == [2.0, 3.0, 1.0, 2.5, 3.5, None]
    assert [x["accuracy"] for x in lines] == [x["bits_per_byte"] for x in lines]
    assert lines[5]["status"] == "diverged"
    assert lines[5]["reason"] == "step 1: NaN"
    assert lines[3]["seed"] == 1
    assert lines[3]["config_hash"] == config_hash(grid.runs[3].config)

    rows = list(csv.DictReader(io.StringIO(records.table_csv(results))))
    assert [row["rank"] for row in rows] == ["1", "2", "", ""]
    assert [row["status"] for row in rows] == ["done", "done", "incomplete", "illegal"]
    assert float(rows[1]["behind_best"]) == 1
    assert "linear memory" in rows[3]["reason"]
    assert "seed 1: diverged, step 1: NaN" in rows[2]["reason"]

    rows = list(csv.DictReader(io.StringIO(records.effects_csv(results))))
    assert [(row["axis"], row["level"]) for row in rows] == [
        ("memory", "mlp"), ("memory", "matrix"), ("algorithm", "gd"), ("algorithm", "newton"),
    ]  # fmt: skip
    assert float(rows[0]["effect"]) == pytest.approx(-0.5)
    assert rows[3]["effect"] == ""


def test_tables_for_people(results):
    told = report.markdown(results)
    for words in (
        "3 cells and 1 illegal one, 2 seeds each, with bias=l2, retention=none.",
        "| 1 | mlp | gd | base | – | 2.2500 ± 3.1766 | 2 of 2 |",
        "| 2 | matrix | gd | +1.0000 ± 0.0000 | < 0.001 | 3.2500 ± 3.1766 | 2 of 2 |",
        "| – | matrix | newton | -1.0000 | – | 1.0000 | 1 of 2 |",
        "| memory | mlp | 1 | 2.2500 | -0.5000 ± 0.0000 |",
        "- memory=mlp, algorithm=newton: algorithm 'newton' is a closed form",
        "- memory=matrix, algorithm=newton, seed 1: diverged, step 1: NaN",
    ):
        assert words in told
    assert len(list(report.tables(results))) == 2
    assert plot(results).startswith(b"\x89PNG")
