"""Seeds and cells share their held-out data; seeds change initialisation and order alone."""

import functools

import numpy as np
import pytest

import miras
from miras.analysis.ablate import held_out, make_grid
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.report import notes
from miras.analysis.ablate.results import summarise
from miras.analysis.ablate.trainable import TrainableCheck
from miras.cli.ablate import parse_points
from miras.config import config_hash
from miras.data import DataConfig, make_loader
from miras.errors import ConfigError
from miras.train import RunConfig
from miras.train.evaluate import sample

_SMALL = ("width=8", "layers=1", "heads=1", "sequence=32", "batch=2", "validation=0.4", "steps=2",
          "eval_batches=3")  # fmt: skip


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for n in range(24):
        (folder / f"{n}.txt").write_text(f"document {n} says {n * n * 7919}. " * (1 + n % 3))
    return folder


def grid_of(words, source, cache, seeds=3):
    small = [
        word for word in _SMALL if not word.startswith("sequence") or "sequence" not in words[0]
    ]
    given = [*words, *small, f"data.source={source}", f"data.cache={cache}"]
    return make_grid(
        parse_points(given),
        functools.partial(miras.override, RunConfig(model=miras.preset("yaad"))),
        seeds=seeds,
        check=TrainableCheck(),
    )


def held_out_of(config):
    return held_out.digest(sample(config.data, config.model.align, config.train.eval_batches))


def first_training_rows(config):
    loader = make_loader(config.data, "train", align=config.model.align)
    return [next(loader)["inputs"] for _ in range(3)]


def test_seeds_and_chunks_share_their_held_out_text(text, tmp_path):
    grid = grid_of(["chunk=2,8,16", "bias=l2,huber"], text, tmp_path)
    assert len({held_out_of(run.config) for run in grid.runs}) == 1
    assert {cell.held_out for cell in grid.cells} == {held_out_of(grid.runs[0].config)}
    aligns = [run.config.data.held_out_align for run in grid.runs[:6]]
    assert aligns == [16, 16, 16, 16, 1, 1]
    orders = [first_training_rows(run.config) for run in grid.runs if run.cell == 0]
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])
    assert not any("Warning" in note for note in notes(summarise(grid, {})))


def test_without_the_fields_seeds_and_chunks_have_their_own_text(text, tmp_path):
    """What the fields are for: this is how runs of `miras train` are evaluated."""
    grid = grid_of(["chunk=8"], text, tmp_path, seeds=1)
    base = grid.cells[0].config
    others = [
        miras.override(base, change) for change in ("data.seed=1", "model.chunk=2", "sequence=16")
    ]
    assert len({held_out_of(config) for config in [base, *others]}) == 4


def test_seeds_share_the_rows_of_a_task_and_not_their_order(tmp_path):
    words = [
        "data.task=mqar",
        "task.pairs=3",
        "task.examples=12",
        "task.vocab=64",
        "model.vocab=64",
        "chunk=8,16",
    ]
    grid = grid_of(words, "stdlib", tmp_path)
    assert len({held_out_of(run.config) for run in grid.runs}) == 1

    def epoch(config):
        loader = make_loader(config.data, "train", align=8, epochs=1)
        return np.concatenate([batch["inputs"] for batch in loader])

    first, second = (epoch(grid.runs[n].config) for n in (0, 2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))


def test_seeds_share_the_split_of_labelled_sequences(tmp_path):
    table = tmp_path / "table.csv"
    rows = (f"{'ACGT'[n % 4] * 5}{'ACGT'[n // 4 % 4] * 5}{n:b},{'ab'[n % 2]}" for n in range(40))
    table.write_text("sequence,label\n" + "\n".join(row.replace("1", "A").replace("0", "C")
                                                     for row in rows))  # fmt: skip
    words = ["data.task=classify", 'task.classes=["a","b"]', "chunk=8,16", "data.tokenizer=byte"]
    grid = grid_of(words, table, tmp_path)
    assert len({held_out_of(run.config) for run in grid.runs}) == 1
    assert {cell.held_out for cell in grid.cells} == {held_out_of(grid.runs[-1].config)}

    def epoch(config):
        loader = make_loader(config.data, "train", align=8, epochs=1)
        return np.concatenate([batch["inputs"] for batch in loader])

    first, second = (epoch(grid.runs[n].config) for n in (0, 2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))


def test_a_mixture_keeps_its_held_out_rows(text, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for n in range(12):
        (other / f"{n}.txt").write_text(f"other {n * 104729} words " * 4)
    mixed = DataConfig(mix={str(text): 2.0, str(other): 1.0}, validation=0.4, sequence=32, batch=2)
    found = [
        held_out.digest(sample(miras.override(mixed, f"seed={n}", "content_seed=0"), 8, 4))
        for n in range(3)
    ]
    assert len(set(found)) == 1
    assert found[0] == held_out.digest(sample(mixed, 8, 4))


def test_rows_of_other_lengths_are_other_text_and_the_report_says_so(text, tmp_path):
    grid = grid_of(["sequence=16,32", "chunk=4,8"], text, tmp_path)
    assert len({cell.held_out for cell in grid.cells}) == 2
    (warning,) = (note for note in notes(summarise(grid, {})) if "Warning: cells" in note)
    assert "2 different samples" in warning
    assert "sequence=16, chunk=4 (2 cells)" in warning


def test_the_first_seed_has_the_config_of_a_single_run(text, tmp_path):
    """Its hash is that of `miras train` with the same words, as before the fields existed."""
    grid = grid_of(["bias=l2,huber"], text, tmp_path)
    for run in grid.runs:
        data = run.config.data
        assert (data.content_seed, data.held_out_align) == (0 if run.seed else None, 1)
    plain = miras.override(grid.runs[0].config, "data.content_seed=none")
    assert config_hash(plain) == config_hash(grid.runs[0].config)


def test_a_grid_of_before_is_not_continued_with_other_text(make, tmp_path):
    grid = make("bias=l2,lp")
    with GridFolder(tmp_path / "grid").opened(grid):
        pass
    path = tmp_path / "grid" / "grid.json"
    path.write_text(path.read_text().replace('"held_out": "common",', ""))
    with pytest.raises(ConfigError, match=r"earlier version.*held-out"):
        GridFolder(tmp_path / "grid").check(grid)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("content_seed=-1", r"data\.content_seed=-1 must lie"),
        ("held_out_align=0", r"data\.held_out_align=0 must be at least 1"),
        ("held_out_align=24", r"data\.held_out_align=24 must divide data\.sequence=256"),
    ],
)
def test_fields_out_of_range(change, told):
    with pytest.raises(ConfigError, match=told):
        miras.override(DataConfig(), change)
