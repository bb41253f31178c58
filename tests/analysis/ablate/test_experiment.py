"""`experiments.ablations`: its cells, its runs, and its tables beside those of the runner."""

import math
import pathlib

import numpy as np
import pytest

import miras
from experiments import ablation_cells, ablation_tables, ablations
from miras.analysis.ablate.outcome import Outcome
from miras.analysis.ablate.results import summarise
from miras.analysis.costs import costs
from miras.config import config_hash
from miras.config.sweep import assignments
from miras.train import load_run
from miras.train.evaluate import evaluate_run

PAGE = pathlib.Path(ablations.__file__).parent / "README.md"
TINY = (
    *("width=16", "heads=2", "layers=1", "sequence=64", "batch=2", "steps=2", "chunk=16"),
    *("eval_batches=1", "remat=none"),
)


@pytest.fixture
def text(tmp_path):
    """A file of text, short but for the held-out part of which rows are cut."""
    words = np.random.default_rng(0).choice(["one", "two", "three\n", "four"], 4000)
    path = tmp_path / "text.txt"
    path.write_text(" ".join(words))
    return str(path)


@pytest.mark.slow
@pytest.mark.sample(0.0)
@pytest.mark.parametrize("preset", ablation_cells.PRESETS)
def test_cells_have_equal_sizes_matched_rates_and_one_held_out_text(preset, text):
    cells = ablation_cells.cells_of(preset)
    grid = ablations.grid(preset, cells, text, 1, ablations.SIZE)
    assert not grid.illegal
    assert not grid.without_preset
    assert len({cell.held_out for cell in grid.cells}) == 1
    sizes = [costs(cell.config.model).parameters for cell in grid.cells]
    assert max(sizes) < 1.02 * min(sizes)
    matched = [cell.config.model for cell in grid.cells if "algorithm.lr=1e-08" not in cell.name]
    assert len(matched) > 1
    strengths = [miras.strength(model.rule, model.width // model.heads).value for model in matched]
    np.testing.assert_allclose(strengths, strengths[0], rtol=0.01)


def test_a_memory_that_is_not_written_has_no_strength():
    silent = miras.override(miras.preset("yaad"), *assignments(ablation_cells.SILENT))
    assert abs(miras.strength(silent.rule, 24).value) < 1e-6


def test_differences_are_those_of_the_runner(text):
    cells = ablation_cells.cells_of("moneta")[:3]
    grid = ablations.grid("moneta", cells, text, 3, TINY)
    values = iter(np.random.default_rng(1).normal(2.5, 0.1, len(grid.runs)))
    outcomes = {
        run: Outcome(config_hash(run.config), "done", bits_per_byte=float(next(values)))
        for run in grid.runs
    }
    results = summarise(grid, outcomes)
    lines = list(ablations.records("moneta", cells, results))
    found = ablation_tables.compare(lines, "moneta", [cell.name for cell in cells])
    rows = {row.cell.name: row for row in results.rows}
    for cell, own in zip(cells, grid.cells[1:], strict=True):
        assert found.differences[cell.name] == rows[own.name].difference
        assert tuple(found.values[cell.name]) == rows[own.name].values


@pytest.mark.parametrize(
    ("value", "spread", "direction", "told"),
    [
        (0.1, 0.001, 1, "agrees"),
        (-0.1, 0.001, 1, "disagrees"),
        (0.1, 0.001, -1, "disagrees"),
        (0.1, 0.001, 0, "worse"),
        (-0.1, 0.001, 0, "better"),
        (0.1, 0.5, 1, "within noise"),
        (0.1, 0.5, 0, "within noise"),
    ],
)
def test_only_what_is_significant_is_a_finding(value, spread, direction, told):
    made = [
        {"preset": "yaad", "cell": cell, "seed": seed, "read": None, "bits_per_byte": bits}
        for seed in range(3)
        for cell, bits in (("preset", 2.0 + seed), ("x", 2.0 + seed + value + spread * (seed - 1)))
    ]
    found = ablation_tables.compare(made, "yaad", ["x"]).differences["x"]
    assert ablation_tables.verdict(found, direction) == told


def test_a_finding_is_corrected_for_all_cells_of_the_preset():
    spreads = {"x": 0.031, "y": 0.5, "z": 0.5}
    made = [
        {"preset": "yaad", "cell": cell, "seed": seed, "read": None, "bits_per_byte": bits}
        for seed in range(3)
        for cell, bits in [
            ("preset", 2.0 + seed),
            *((name, 2.1 + seed + spread * (seed - 1)) for name, spread in spreads.items()),
        ]
    ]
    for names, told in (["x"], "agrees"), (list(spreads), "within noise"):
        found = ablation_tables.compare(made, "yaad", names).differences["x"]
        assert found.p == pytest.approx(0.0306, abs=1e-3)
        assert ablation_tables.verdict(found, 1) == told


def test_a_run_that_diverged_is_no_value_of_its_cell():
    made = [
        {"preset": "yaad", "cell": cell, "seed": seed, "read": None, "bits_per_byte": bits}
        for seed, cell, bits in [
            (0, "preset", 2.0),
            (1, "preset", 3.0),
            (0, "x", 2.5),
            (1, "x", None),
        ]
    ]
    found = ablation_tables.compare(made, "yaad", ["x"])
    assert found.differences["x"].values == (0.5,)
    assert math.isnan(found.values["x"][1])


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_cells_are_trained_read_at_other_chunks_and_kept(text, tmp_path):
    cells = tuple(cell for cell in ablation_cells.cells_of("yaad") if cell.name == "chunk 64")
    path, out = tmp_path / "kept" / "ablations.jsonl", tmp_path / "runs"

    def measure():
        return ablations.measure("yaad", text, out, path, seeds=1, cells=cells, size=TINY)

    results = measure()
    lines = ablations.read(path)
    assert [(line["cell"], line["read"]) for line in lines] == [
        *(("preset", None), ("chunk 64", None)),
        ("preset", "not written"),
        *(("chunk 64", "chunk 4"), ("chunk 64", "chunk 8"), ("chunk 64", "chunk 16")),
    ]
    assert len({line["bits_per_byte"] for line in lines}) == len(lines)
    assert text not in path.read_text()
    # Read at its own chunk, a model has what the runner measured.
    run = load_run(out / "runs" / lines[1]["run"])
    again = evaluate_run(ablations.changed(run, {"chunk": 64}), batches=1)._asdict()[
        "bits_per_byte"
    ]
    assert again == pytest.approx(lines[1]["bits_per_byte"], rel=1e-6)
    ablation_tables.plot(lines, tmp_path / "ablations.png")
    assert (tmp_path / "ablations.png").stat().st_size > 10_000
    assert f"| chunk 64 | 0.01 | {lines[1]['bits_per_byte']:.4f} |" in ablation_tables.markdown(
        lines
    )

    assert [o.seconds for o in measure().outcomes.values()] == [
        o.seconds for o in results.outcomes.values()
    ]
    assert ablations.read(path) == lines


def test_the_experiments_page_has_the_ablations():
    lines = ablations.read(ablations.RESULTS / "ablations.jsonl")
    for table in ablation_tables.markdown(lines).split("\n\n"):
        assert table in PAGE.read_text()
