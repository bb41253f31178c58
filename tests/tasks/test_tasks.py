"""What holds for every registered task."""

import pathlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.config import config_hash, from_json, override, to_json
from miras.data import DataConfig
from miras.errors import ConfigError
from miras.tasks import seeded
from tests.tasks.kinds import KINDS

depths = st.one_of(st.none(), st.floats(0, 1))
fast = settings(max_examples=20, deadline=None)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_length_asked_for_and_ask_within_it(kind, opened, make, tokenizer):
    size = make(kind).vocabulary() or tokenizer.vocab_size

    @fast
    @given(length=st.integers(660, 1000), depth=depths, seed=st.integers(0, 99))
    def check(length, depth, seed):
        row = opened(kind).example(seeded(seed, "train"), length, depth)
        assert row.inputs.shape == (length,)
        assert row.positions.shape == row.targets.shape
        assert {array.dtype for array in row} == {np.dtype(np.int32)}
        assert len(row.positions) > 0
        assert (np.diff(row.positions) > 0).all()
        assert row.positions[0] >= 0
        assert row.positions[-1] < length
        for tokens in (row.inputs, row.targets):
            assert tokens.min() >= 0
            assert tokens.max() < size

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_its_seed_alone(kind, opened):
    def row(seed, role):
        found = opened(kind, role=role).example(seeded(seed, role, 3), 672, 0.3)
        return b"".join(array.tobytes() for array in found)

    assert row(0, "train") == row(0, "train")
    rows = [row(seed, role) for seed in range(3) for role in ("train", "validation", "eval")]
    assert len(set(rows)) == 9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [None, 0.0, 1.0])
def test_the_least_length_is_told_and_is_the_least(kind, depth, opened):
    example = opened(kind).example
    with pytest.raises(ConfigError, match=r"length=1 is too short for .*: use at least") as told:
        example(seeded(0, "train"), 1, depth)
    least = int(re.findall(r"at least (\d+)", str(told.value))[0])
    assert len(example(seeded(0, "train"), least, depth).inputs) == least
    with pytest.raises(ConfigError, match=f"length={least - 1} is too short"):
        example(seeded(0, "train"), least - 1, depth)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_in_text_is_read_as_it_is_told(kind, opened, make):
    """Each target but the last is the input that follows it: the row is one text."""
    row = opened(kind).example(seeded(0, "train"), 672, None)
    if make(kind).vocabulary() is None:
        np.testing.assert_array_equal(row.inputs[row.positions[1:]], row.targets[:-1])
        assert row.positions[-1] == 671
    else:
        assert not np.isin(row.targets, row.inputs[row.positions]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_run_is_at_one_of_its_depths(kind, opened, make):
    task = make(kind, "depths=[0.25,1]")
    rows = [task.row(opened(kind), seeded(n, "train"), 672).inputs.tobytes() for n in range(12)]

    def at(depth):
        found = []
        for n in range(12):
            random = seeded(n, "train")
            random.choice([0.25, 1])
            found.append(opened(kind).example(random, 672, depth).inputs.tobytes())
        return found

    low, high = at(0.25), at(1.0)
    assert all(row in pair for row, pair in zip(rows, zip(low, high), strict=True))
    assert set(rows) & set(low)
    assert set(rows) & set(high)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_data(kind, make):
    data = DataConfig(task=make(kind, "examples=7"))
    assert from_json(DataConfig, to_json(data)) == data
    assert config_hash(data) != config_hash(override(data, "task.examples=8"))
    assert override(data, "task=none").task is None


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["task=mqarr"], "unknown task 'mqarr': did you mean 'mqar'.* legal ones are mqar, "),
        (["task=mqar", "task.paris=3"], "did you mean 'pairs'"),
        (["task=mqar", "task.pairs=[]"], "task.pairs.* is empty"),
        (["task=mqar", "task.pairs=0"], "task.pairs=0 must be at least 1"),
        (["task=mqar", "task.vocab=17"], "task.vocab=17 .* task.pairs=8: use task.vocab=18"),
        (["task=mqar", "task.power=0"], "task.power=0.0 must be positive"),
        (["task=mqar", "task.examples=0"], "task.examples=0 must be at least 1"),
        (["task=niah", "task.depths=[0.5,1.5]"], r"task.depths=1.5 must lie in \[0, 1\]"),
        (["task=niah", "task.depths=[]"], "task.depths.* is empty"),
        (["task=niah", "task.form=essay"], "'passkey', 'number', 'word', 'uuid'"),
        (["task=niah", "task.digits=19"], r"task.digits=19 must lie in \[1, 18\]"),
        (["task=babilong", "task.qa=21"], r"task.qa=21 must lie in \[1, 20\]"),
        (["task=selective_copy", "task.vocab=3"], "task.vocab=3 must be at least 4"),
        (["task=selective_copy", "task.tokens=0"], "task.tokens=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(assignments, told):
    with pytest.raises(ConfigError, match=told):
        override(DataConfig(), *assignments)


@pytest.mark.parametrize("kind", KINDS)
def test_each_task_has_a_row_and_a_paragraph(kind):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    assert f"| `{kind}` |" in page
    assert f"**{kind}.**" in page
