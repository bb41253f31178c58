"""Sweeps of rates: the cells they make, the best rate of each, and what is said of it."""

import csv
import functools
import io

import pytest

import miras
from miras.analysis.ablate import make_grid, parse_rates, records, report
from miras.analysis.ablate.best_rates import choices, spread_of
from miras.analysis.ablate.metric import BITS_PER_BYTE
from miras.analysis.ablate.rates_report import plot_rates, rates_csv
from miras.analysis.ablate.results import summarise
from miras.cli.ablate import parse_points
from miras.errors import ConfigError
from miras.train import RunConfig
from tests.analysis.ablate.test_results import outcomes


def grid_at(words, *sweeps, seeds=2, preset="yaad"):
    build = functools.partial(miras.override, RunConfig(model=miras.preset(preset)))
    return make_grid(
        parse_points(words), build, seeds=seeds, title=preset, swept=parse_rates(sweeps),
        check=lambda config: None,
    )  # fmt: skip


def rates_of(grid):
    return [[(rate.text, rate.value) for rate in cell.rates] for cell in grid.cells]


def test_multiples_are_of_the_cells_own_rate():
    grid = grid_at(["bias=huber,l2", "algorithm.lr=0.02"], "algorithm.lr=0.5x,1x,0.04")
    assert rates_of(grid)[:3] == [[("0.5x", 0.01)], [("1x", 0.02)], [("0.04", 0.04)]]
    own = miras.preset("yaad").rule.algorithm
    for cell in grid.cells:
        made = cell.config.model.rule.algorithm
        assert made.lr == cell.rates[0].value
        assert made.max_lr / made.lr == pytest.approx(own.max_lr / 0.02)
    assert [cell.group for cell in grid.cells] == ["bias=huber"] * 3 + ["bias=l2"] * 3
    assert grid.cells[3].name == "bias=l2, algorithm.lr=0.5x"
    assert len({run.slug for run in grid.runs}) == len(grid.runs) == 12
    assert grid.identity()["swept"] == {"algorithm.lr": ["0.5x", "1x", "0.04"]}


def test_both_rates_are_a_product():
    grid = grid_at(["bias=huber"], "learning_rate=1e-3,2x", "optim.lr=1x,2x")
    own = RunConfig(model=miras.preset("yaad")).train.learning_rate
    made = [(c.config.train.learning_rate, c.config.model.rule.algorithm.lr) for c in grid.cells]
    assert made == [(1e-3, 0.01), (1e-3, 0.02), (2 * own, 0.01), (2 * own, 0.02)]


def test_all_memories_of_a_model_move_and_attention_has_no_inner_rate():
    blocks = ["blocks.M=yaad,attention", "pattern=M"]
    grid = grid_at(blocks, "algorithm.lr=1x,2x", preset="yaad")
    assert [cell.name for cell in grid.cells if cell.rates == ()] == ["blocks.M=attention"]
    assert len(grid.cells) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["width=1,2"], "'width=1,2' is not the sweep of a rate: give algorithm.lr="),
        (["algorithm.lr=0.5x"], "needs two values or more"),
        (["algorithm.lr=1x,1x"], "all different"),
        (["algorithm.lr=1x,fast"], "'fast' is not a rate"),
        (["algorithm.lr=1x,-1"], "'-1' is not a rate"),
        (["algorithm.lr=1x,infx"], "'infx' is not a rate"),
        (["algorithm.lr=1x,2x", "optim.lr=3x,4x"], "algorithm.lr is swept twice"),
    ],
)
def test_sweeps_that_cannot_be(words, told):
    with pytest.raises(ConfigError) as error:
        parse_rates(words)
    assert told in str(error.value)


def test_two_values_that_are_one_rate_are_refused():
    with pytest.raises(ConfigError, match="the same model and training"):
        grid_at(["bias=huber"], "algorithm.lr=1x,0.01")


# Of cells (huber, l2) at 0.5x, 1x, 2x, by seed.
VALUES = [
    [2.5, 2.7], [2.0, 2.2], [2.4, 2.4],
    [3.0, 3.1], [2.6, 2.5], [2.1, 2.4],
]  # fmt: skip


def swept(values=VALUES, sweep="algorithm.lr=0.5x,1x,2x"):
    grid = grid_at(["bias=huber,l2"], sweep)
    return summarise(grid, outcomes(grid, values))


def test_cells_are_compared_at_their_best_rates():
    results = swept()
    assert [cell.name for cell in results.grid.cells] == ["bias=huber", "bias=l2"]
    assert results.base.name == "bias=huber"
    assert not results.grid.without_preset
    rows = {row.cell.name: row for row in results.rows}
    assert rows["bias=huber"].values == (2.0, 2.2)
    assert rows["bias=l2"].values == (2.1, 2.4)
    assert rows["bias=l2"].difference.estimate.mean == pytest.approx(0.15)
    assert rows["bias=l2"].cell.config.model.rule.algorithm.lr == 0.02
    assert [choice.edges for choice in results.choices] == [{}, {"algorithm.lr": "highest"}]
    assert len(results.all_runs.outcomes) == 12

    told = report.markdown(results)
    assert "2 cells, 6 with their rates, 2 seeds each" in told
    assert "| bias=huber | 0.01 (1x) | 2.1000 ± " in told
    assert "| bias=l2 | 0.02 (2x) | 2.2500 ± " in told
    assert "highest algorithm.lr of the sweep" in told
    assert "Warning: the best rate is at an edge of the sweep in bias=l2." in told
    assert "the same held-out data chooses the rate" in told
    assert "rates.png" in told
    assert plot_rates(results).startswith(b"\x89PNG")
    assert len(records.jsonl(*results.all_runs).splitlines()) == 12

    table = list(csv.DictReader(io.StringIO(rates_csv(results))))
    assert len(table) == 6
    assert [row["best"] for row in table] == ["0", "1", "0", "0", "0", "1"]
    assert float(table[4]["bits_per_byte"]) == 2.55
    assert table[5]["edge"] == "algorithm.lr:highest"
    assert (table[3]["algorithm.lr"], table[3]["algorithm.lr_given"]) == ("0.005", "0.5x")


def test_a_rate_at_which_a_seed_diverged_is_not_chosen_and_is_no_edge():
    values = [*VALUES[:5], [1.0, None]]
    results = swept(values)
    l2 = results.choices[1]
    assert l2.best.cell.rates[0].text == "1x"
    assert l2.edges == {}  # a higher one was tried
    assert "bias=l2, algorithm.lr=2x, seed 1: diverged" in report.markdown(results)


def test_nothing_is_chosen_of_a_cell_without_a_complete_rate():
    results = swept([*VALUES[:3], [1.0, None], [None, None], [None, 3.0]])
    assert results.choices[1].best is None
    assert {row.cell.name: row.rank for row in results.rows} == {"bias=huber": 1, "bias=l2": None}
    assert plot_rates(results)
    assert "| bias=l2 | – | – | 0 of 3 |" in report.markdown(results)


def test_the_best_accuracy_is_the_highest():
    grid = grid_at(["bias=huber,l2", "task=mqar"], "algorithm.lr=0.5x,1x,2x")
    results = summarise(grid, outcomes(grid, VALUES))
    assert [choice.best.cell.rates[0].text for choice in results.choices] == ["0.5x", "0.5x"]


def test_a_curve_over_one_rate_has_the_other_at_its_best():
    grid = grid_at(["bias=huber"], "algorithm.lr=1x,2x", "train.learning_rate=1e-3,2e-3", seeds=1)
    found = outcomes(grid, [[4.0], [3.0], [2.0], [1.0]])
    (choice,) = choices(grid, found, BITS_PER_BYTE)
    assert [x.score.mean for _, x in spread_of(choice, "algorithm.lr")] == [3, 1]
    assert [x.score.mean for _, x in spread_of(choice, "train.learning_rate")] == [2, 1]
    assert choice.edges == {"algorithm.lr": "highest", "train.learning_rate": "highest"}
    assert plot_rates(summarise(grid, found))
