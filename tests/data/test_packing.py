"""The packer alone: every id once, aligned segments, exact positions."""

import json

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.data.packing import PackedRows, PackingSpec
from miras.data.rows import RowBatches
from miras.data.tokenized import TokenizedDocument
from miras.errors import ConfigError

BOS = 10**6


def documents(sizes):
    """Documents whose ids count on from one to the next, so that no id occurs twice."""
    ends = np.cumsum(sizes)
    return [
        TokenizedDocument(
            np.concatenate([[BOS], np.arange(end - size, end)]).astype(np.int32),
            np.arange(end - size, end, dtype=np.float32) + 1,
        )
        for size, end in zip(sizes, ends, strict=True)
    ]


def iterator(sizes, layout, rows=1, own=None, identity=None):
    return batches_of(grain.MapDataset.source(documents(sizes)), layout, rows, own, identity)


def batches_of(source, layout, rows, own=None, identity=None):
    return RowBatches(PackedRows(source, layout), rows, layout.sequence, own, identity)


layouts = st.builds(
    lambda align, chunks, lanes: PackingSpec(align * chunks, align, lanes),
    align=st.integers(1, 5),
    chunks=st.integers(1, 4),
    lanes=st.integers(1, 5),
)
counts = st.integers(1, 4)
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(sizes=sizes, layout=layouts, rows=counts)
def test_every_id_is_a_target_once_in_an_aligned_segment_of_its_document(sizes, layout, rows):
    batches = list(iterator(sizes, layout, rows))
    seen = [batch["targets"][batch["mask"]] for batch in batches]
    assert sorted(np.concatenate([[], *seen])) == list(range(sum(sizes)))

    firsts = set(np.cumsum([0, *sizes[:-1]]).tolist())
    owner = np.repeat(np.arange(len(sizes)), sizes)
    for batch in batches:
        mask, targets, segments = batch["mask"], batch["targets"], batch["segment_ids"]
        assert mask.shape == (rows, layout.sequence)
        starts = np.array([t in firsts for t in targets[mask]], bool)
        np.testing.assert_array_equal(
            batch["inputs"][mask], np.where(starts, BOS, targets[mask] - 1)
        )
        np.testing.assert_array_equal(batch["target_bytes"], np.where(mask, targets + 1, 0))
        changes = np.argwhere(np.diff(segments, axis=1))[:, 1] + 1
        assert not (changes % layout.align).any()
        for row in range(rows):
            used = segments[row][segments[row] > 0]
            assert list(np.unique(used)) == list(range(1, used.max(initial=0) + 1))
            assert (np.diff(used) >= 0).all()
            assert not segments[row, len(used) :].any()  # 0 only after everything else
            assert not mask[row, len(used) :].any()
            for segment in np.unique(used):
                inside = mask[row] & (segments[row] == segment)
                assert len(np.unique(owner[targets[row][inside]])) == 1
                assert inside.sum() > (segments[row] == segment).sum() - layout.align


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, layout=layouts, rows=counts, cut=st.integers(0, 12))
def test_a_saved_position_gives_the_same_later_batches(sizes, layout, rows, cut):
    original = iterator(sizes, layout, rows)
    for _ in range(cut):
        next(original, None)
    state = json.loads(json.dumps(original.get_state()))
    other = iterator(sizes, layout, rows)
    next(other, None)
    other.set_state(state)
    assert other.get_state() == state
    left, right = list(original), list(other)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_restoring_fetches_a_document_for_each_lane_in_use_and_no_other():
    fetched = []

    def fetch(n):
        fetched.append(n)
        return documents([30] * 100)[n]

    source = grain.MapDataset.range(100).map(fetch)
    layout = PackingSpec(sequence=8, lanes=4)
    original = batches_of(source, layout, 4)
    for _ in range(70):
        next(original)
    state = original.get_state()
    restored = batches_of(source, layout, 4)
    fetched.clear()
    restored.set_state(state)
    assert fetched == []
    next(restored)
    assert len(fetched) <= 2 * 4  # a lane may end its document in this row and take a new one


def test_rows_of_a_batch_come_from_different_documents():
    batch = next(iterator([64] * 8, PackingSpec(sequence=16, lanes=8), 8))
    assert len(np.unique(batch["targets"] // 64)) == 8


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, layout=layouts, own=st.sets(st.integers(0, 3), min_size=1).map(list))
def test_rows_of_ones_own_are_those_of_whole_batches(sizes, layout, own):
    whole = list(iterator(sizes, layout, 4))
    part = list(iterator(sizes, layout, 4, own))
    assert len(part) == len(whole)
    for a, b in zip(whole, part, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name][own], b[name])


def test_a_position_in_other_data_is_refused_by_name():
    state = iterator([9], PackingSpec(4), identity={"corpus": "a", "seed": 1}).get_state()
    with pytest.raises(ConfigError, match=r"corpus was 'a', is 'b'.*start a new run"):
        iterator([9], PackingSpec(4), identity={"corpus": "b", "seed": 1}).set_state(state)
