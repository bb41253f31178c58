"""`miras ablate --dry-run`: what it lists, and that it trains, reads and writes nothing."""

import pytest

from miras.analysis.ablate import preview
from miras.analysis.plan.chips import CHIPS, Chip
from miras.cli.main import main

_SMALL = ("width=32", "layers=1", "heads=2", "sequence=32", "batch=2", "steps=50")


@pytest.fixture
def chip(monkeypatch):
    found = Chip(name="cpu", flops=1e9, hbm=1e9, bandwidth=1e9)
    monkeypatch.setattr("miras.analysis.plan.cpu.measured", lambda: found)


@pytest.mark.usefixtures("own_cache", "chip")
def test_a_dry_run_lists_cells_and_totals_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["ablate", "yaad", "memory=mlp,matrix", "chunk=8,24", *_SMALL, "--seeds", "2"]
    argv += ["--budget", "params", "--data", "/no/such/text", "--dry-run"]
    argv += ["--sweep", "algorithm.lr=0.5x,1x"]
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert "skipped memory=mlp, chunk=24; memory=matrix, chunk=24: data.sequence=32 is not" in told
    lines = {line.split("  ")[0]: line for line in told.splitlines()}
    assert "changed to match" in lines["cell"]
    assert "algorithm.lr" in lines["cell"]
    assert "0.005, 0.01" in lines["memory=mlp, chunk=8"]
    assert "mlp_ratio=" in lines["memory=matrix, chunk=8"]
    assert lines["memory=mlp, chunk=8"].split()[-1] == "4"
    assert "2 cells x 2 of algorithm.lr x 2 seeds = 8 runs, " in told
    assert "Nothing was trained or written, and no text was read." in told
    assert "Predicted for this CPU" in told


def test_predictions_are_those_of_plan(make):
    from miras.analysis.plan.job import Job
    from miras.analysis.plan.predict import predict
    from miras.analysis.plan.slices import PlannedSlice

    machine = PlannedSlice(CHIPS["v5e"], (1,), 1, "one v5e")
    grid = make("bias=huber,l2", *_SMALL, seeds=3)
    first, _ = found = preview.previews(grid, machine)
    plan = predict(Job(grid.cells[0].config, machine))
    assert first.memory == plan.memory.peak
    assert first.seconds == pytest.approx(50 * plan.step)
    assert first.costs.flops == pytest.approx(50 * plan.flops.model)
    assert first.runs == 3
    notes = " ".join(preview.preview_notes(grid, found, machine))
    assert "2 cells x 3 seeds = 6 runs" in notes
    assert preview.seconds_text(sum(3 * row.seconds for row in found)) in notes


def test_a_machine_that_is_not_known(make):
    grid = make("bias=l2,lp", *_SMALL, seeds=1)
    found = preview.previews(grid, None)
    assert {row.seconds for row in found} == {None}
    notes = list(preview.preview_notes(grid, found, None))
    assert any("neither time nor memory is predicted" in note for note in notes)
    assert any("no cell is the preset" in note for note in notes)


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5 s"), (119, "119 s"), (150, "2.5 min"), (9000, "2.5 h")]
)
def test_times_in_their_units(value, text):
    assert preview.seconds_text(value) == text
