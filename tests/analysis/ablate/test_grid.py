"""Which cells a grid has, which are illegal and why, and which runs it comes to."""

import functools

import pytest

import miras
from miras.analysis.ablate import grid_of, make_grid, parse_rates
from miras.analysis.ablate.trainable import TrainableCheck
from miras.cli.ablate import parse_points
from miras.config import sweep
from miras.errors import ConfigError
from miras.train import RunConfig


def test_cells_are_presets_with_assignments(make):
    grid = make("bias=l2,lp", "chunk=8,16", "width=64")
    assert grid.axes == {"bias": ("l2", "lp"), "chunk": ("8", "16")}
    assert grid.fixed == {"width": "64"}
    assert [cell.name for cell in grid.cells] == [
        "bias=l2, chunk=8", "bias=l2, chunk=16", "bias=lp, chunk=8", "bias=lp, chunk=16",
    ]  # fmt: skip
    expected = miras.override(miras.preset("yaad"), "width=64", "bias=lp", "chunk=8")
    assert grid.cells[2].config.model == expected
    assert grid.illegal == ()


def test_a_field_of_a_part_that_a_cell_lacks_is_illegal(make):
    grid = make("bias.p=2,3", "bias=l2,lp")
    assert [cell.name for cell in grid.cells] == ["bias.p=2, bias=lp", "bias.p=3, bias=lp"]
    assert [cell.levels for cell in grid.illegal] == [
        {"bias.p": "2", "bias": "l2"},
        {"bias.p": "3", "bias": "l2"},
    ]
    assert all("unknown field of L2Loss 'p'" in cell.reason for cell in grid.illegal)


def test_the_rule_tells_what_has_no_meaning(make):
    grid = make("memory=mlp,matrix", "optim=gd,newton", "bias=l2", "retention=none")
    assert [cell.name for cell in grid.illegal] == ["memory=mlp, algorithm=newton"]
    assert "linear memory" in grid.illegal[0].reason


def test_what_would_be_refused_once_a_run_starts_is_illegal_too(make, tmp_path):
    for n in range(20):
        (tmp_path / f"{n}.txt").write_text(f"{n} is a number " * 20)
    grid = make(
        "chunk=8,24", "width=16", "layers=1", "heads=2", "sequence=32", "batch=2",
        "validation=0.3", "steps=2", f"data.source={tmp_path}", check=TrainableCheck(),
    )  # fmt: skip
    assert [cell.name for cell in grid.cells] == ["chunk=8"]
    assert "not a multiple" in grid.illegal[0].reason
    with pytest.raises(ConfigError, match=r"warmup=3 must be less than train\.steps=2"):
        make("chunk=8,16", "warmup=3", "steps=2", check=TrainableCheck())
    with pytest.raises(ConfigError, match=r"^data source '/no/text' does not exist"):
        make("chunk=8,16", "data.source=/no/text", check=TrainableCheck())


def test_runs_take_seeds_one_after_another(make):
    grid = make("bias=l2,lp", "train.seed=5", seeds=3)
    assert [(run.cell, run.seed) for run in grid.runs] == [
        (0, 5), (1, 5), (0, 6), (1, 6), (0, 7), (1, 7),
    ]  # fmt: skip
    assert [run.config.data.seed for run in grid.runs] == [0, 0, 1, 1, 2, 2]
    assert len({run.slug for run in grid.runs}) == 6
    assert grid.runs[2].slug.startswith("l2-seed6-")


def test_slugs_of_any_value_are_names_of_folders(make):
    grid = make('memory={"kind":"mlp","depth":3},matrix', "data.source=/tmp/../a b")
    for run in grid.runs:
        assert set(run.slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert not run.slug.startswith(".")


def test_sweeps_that_are_no_products():
    build = functools.partial(miras.override, RunConfig(model=miras.preset("yaad")))
    points = sweep.chain(
        sweep.zip_points(sweep.axis("width", [64, 128]), sweep.axis("heads", [2, 4])),
        sweep.axis("bias", ["l2"]),
    )
    grid = make_grid(points, build, seeds=1, check=lambda config: None)
    assert grid.axes["width"] == ("64", "128", "(preset)")
    assert grid.cells[2].levels == {"width": "(preset)", "heads": "(preset)", "bias": "l2"}


def test_no_axis_is_one_cell(make):
    grid = make("steps=5")
    assert [cell.name for cell in grid.cells] == ["(preset)"]
    assert grid.axes == {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["biass=l2,lp", "retention=l2,none"], "^unknown key 'biass'"),
        (["memory=kv", "bias=l2,lp"], "^memory 'kv' does not go with algorithm 'gd'"),
        (["memory=mlp", "optim=newton,nonparametric"], "none of the 2 cells is legal .*newton.*kv"),
        (["train.seed=0,1"], "--seeds"),
        (["chunk=16,1.6e1"], "chunk=16 and chunk=1.6e1 are the same"),
        (["train.seed=4294967295"], "train.seed=4294967296"),
    ],
)
def test_grids_that_cannot_be(make, words, told):
    with pytest.raises(ConfigError, match=told):
        make(*words)


def test_there_is_at_least_one_seed(make):
    with pytest.raises(ConfigError, match="seeds=0"):
        make("bias=l2,lp", seeds=0)


def test_mixers_blocks_and_patterns_are_axes():
    base = RunConfig(miras.preset("yaad"))
    build = functools.partial(miras.override, base)
    words = ["blocks.M.mixer=memory,mag", "layers=6", "pattern=M,M S,M M S"]
    grid = make_grid(parse_points(words), build, seeds=1, check=lambda config: None)
    assert [cell.config.model.architecture for cell in grid.cells] == ["lmm"] * 3 + ["mag"] * 3
    words = ["blocks.N=gated_deltanet,attention", "N.chunk=4,8", "pattern=M N"]
    grid = make_grid(parse_points(words), build, seeds=1, check=lambda config: None)
    assert [cell.levels["N.chunk"] for cell in grid.cells] == ["4", "8"]
    assert all("chunk has no effect here" in cell.reason for cell in grid.illegal)


def test_any_function_from_a_point_to_a_config():
    """Values may be anything, such as a preset's function; text and JSON are shown as they are."""
    from miras.presets.deep import moneta, yaad

    def make(point):
        model = miras.override(point["model"](), f"width={point['width']}")
        if point["width"] == 48:
            raise ConfigError("48 is not tried.")
        return RunConfig(model=model)

    points = [{"model": m, "width": w} for w in (32, 48, 64) for m in (yaad, moneta)]
    grid = grid_of(points, make, seeds=2, base=points[4], check=lambda config: None)
    assert [cell.name for cell in grid.cells][:2] == [
        "model=yaad, width=32", "model=moneta, width=32",
    ]  # fmt: skip
    assert {cell.reason for cell in grid.illegal} == {"48 is not tried."}
    assert grid.cells[grid.base].name == "model=yaad, width=64"
    assert not grid.without_preset
    assert [run.seed for run in grid.runs][:5] == [0, 0, 0, 0, 1]
    with pytest.raises(ConfigError, match="is no point of the grid"):
        grid_of(points, make, seeds=1, base={"width": 1}, check=lambda config: None)
    with pytest.raises(ConfigError, match="has no points"):
        grid_of([], make, seeds=1)


def test_a_function_may_be_matched_and_swept_too():
    points = sweep.axis("depth", [1, 2])

    def make(point):
        words = (f"memory.depth={point['depth']}", "width=32", "layers=1", "vocab=64", "steps=100")
        return miras.override(RunConfig(model=miras.preset("yaad")), *words)

    grid = grid_of(
        points, make, seeds=1, budget="flops", swept=parse_rates(["train.learning_rate=1x,2x"]),
        check=lambda config: None,
    )  # fmt: skip
    assert [cell.group for cell in grid.cells] == ["depth=1"] * 2 + ["depth=2"] * 2
    assert grid.cells[0].config.train.steps == 100
    assert grid.cells[3].config.train.steps < 100
    assert grid.cells[3].config.train.learning_rate == 6e-3
