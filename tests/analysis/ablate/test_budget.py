"""Cells that are matched to the base: what is changed, how near they come, and what is refused."""

import functools

import pytest

import miras
from miras.analysis.ablate import make_grid, report
from miras.analysis.ablate.budget import amount, changes
from miras.analysis.ablate.cell_costs import cell_costs
from miras.analysis.ablate.results import summarise
from miras.cli.ablate import parse_points
from miras.errors import ConfigError
from miras.train import RunConfig

_SMALL = ("width=16", "layers=1", "heads=2", "vocab=32", "sequence=32", "batch=2", "steps=100")


def grid_of_words(*words, budget, preset="yaad", small=_SMALL):
    given = {word.partition("=")[0] for word in words}
    rest = [word for word in small if word.partition("=")[0] not in given]
    build = functools.partial(miras.override, RunConfig(model=miras.preset(preset)))
    return make_grid(
        parse_points([*words, *rest]), build, seeds=1, title=preset, budget=budget,
        check=lambda config: None,
    )  # fmt: skip


def amounts(grid, budget):
    return [amount(cell.config, budget) for cell in grid.cells]


def test_parameters_are_matched_by_the_channel_mixer():
    small = (*_SMALL[1:], "width=32")
    grid = grid_of_words("memory=mlp,matrix", budget="params", small=small)
    assert grid.illegal == ()
    base, other = amounts(grid, "params")
    assert other == pytest.approx(base, rel=0.02)
    assert grid.cells[0].changes == ()
    assert all(cell.config.model.width == 32 for cell in grid.cells)
    (change,) = grid.cells[1].changes
    assert change.startswith("model.mlp_ratio=")
    unmatched = grid_of_words("memory=mlp,matrix", budget=None, small=small)
    assert amounts(unmatched, "params")[1] < 0.9 * base


@pytest.mark.parametrize(
    ("memory", "field"),
    [
        ("gated_mlp", "model.rule.memory.hidden"),
        pytest.param("matrix", "model.width", marks=pytest.mark.exhaustive),
    ],
)
def test_the_state_is_matched_by_the_memory_the_heads_or_the_width(memory, field):
    grid = grid_of_words(f"memory=mlp,{memory}", budget="state")
    base, other = amounts(grid, "state")
    assert other == pytest.approx(base, rel=0.05)
    assert grid.cells[1].changes[0].partition("=")[0] == field


@pytest.mark.parametrize("budget", ["flops", "tokens"])
def test_training_is_matched_by_the_steps(budget):
    grid = grid_of_words("memory=mlp,matrix", "batch=2,4", budget=budget)
    assert grid.illegal == ()
    wanted = amount(miras.override(grid.cells[0].config, "train.steps=100", "data.batch=8"), budget)
    assert amounts(grid, budget) == pytest.approx([wanted] * 4, rel=0.02)
    steps = [cell.config.train.steps for cell in grid.cells]
    if budget == "tokens":
        assert steps == [400, 200, 400, 200]
    else:
        assert steps[:2] == [400, 200]
        assert steps[2] > 400  # a matrix is cheaper than an MLP
        assert steps[2] == pytest.approx(2 * steps[3], abs=1)
    told = report.markdown(summarise(grid, {}, [cell_costs(cell.config) for cell in grid.cells]))
    assert "changed to match" in told
    assert f"| steps={steps[2]} |" in told
    assert f"with equal {'FLOPs' if budget == 'flops' else 'tokens'}" in told


def test_what_cannot_be_matched_is_skipped_with_the_reason():
    grid = grid_of_words("memory=mlp,matrix", "steps=3", budget="flops")
    assert [cell.name for cell in grid.cells] == ["memory=mlp"]
    reason = grid.illegal[0].reason
    assert "no number of steps gives this cell the FLOPs of the base" in reason
    assert "to within 2 %" in reason


def test_a_field_that_the_grid_varies_is_not_changed():
    grid = grid_of_words("width=128,64", budget="params")
    assert grid.cells[1].config.model.width == 64
    assert amounts(grid, "params")[1] == pytest.approx(amounts(grid, "params")[0], rel=0.02)
    with pytest.raises(ConfigError, match="no mlp_ratio or width gives this cell the parameters"):
        grid_of_words("width=64,32", "mlp_ratio=2.0,3.0", budget="params")
    grid = grid_of_words("steps=1000,200", "memory=mlp", budget="flops")
    assert r"train.steps is an axis" in grid.illegal[0].reason
    with pytest.raises(ConfigError, match=r"budget='flop' must be one of flops, params"):
        grid_of_words("memory=mlp,matrix", budget="flop")


@pytest.mark.exhaustive
def test_rates_are_matched_again_at_the_width_that_was_changed():
    from miras.cli.runs import run_config

    def build(*words):
        return run_config("yaad", list(words), None, rates="matched", with_data=False)

    points = parse_points(["memory=mlp,matrix", *_SMALL])
    grid = make_grid(points, build, seeds=1, budget="state", check=lambda config: None)
    (mlp,), (matrix,) = (cell_costs(cell.config).rates for cell in grid.cells)
    assert grid.cells[1].config.model.width != 16
    yaad = miras.override(miras.preset("yaad"), "width=16", "heads=2")
    d = grid.cells[1].config.model.width // 2
    own = {"chunk": yaad.chunk, "lr_by_position": yaad.layer.lr_by_position}
    # At this width the base writes more strongly than 1 / chunk, the most that matching allows.
    wanted = min(miras.strength(yaad.rule, d, **own).value, 1 / yaad.chunk)
    assert matrix.strength == pytest.approx(wanted, rel=0.01)
    assert mlp.lr == yaad.rule.algorithm.lr


def test_a_cell_within_the_tolerance_stays_as_it_is():
    base = miras.override(RunConfig(model=miras.preset("yaad")), *_SMALL, "width=64", "heads=1")
    assert changes(base, base, "params") == ()
    near = miras.override(base, "vocab=33")
    assert amount(near, "params") != amount(base, "params")
    assert changes(near, base, "params") == ()
    assert changes(miras.override(base, "steps=101"), base, "tokens") == ("train.steps=100",)
