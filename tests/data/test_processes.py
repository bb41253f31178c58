"""Batches are a function of the step: any processes, resumed by any others, read the same."""

import hashlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miras.config import override
from miras.data import DataConfig, make_loader
from miras.data.prepared.prepare import prepare
from miras.errors import ConfigError

BATCH = 6


@pytest.fixture
def config(folder, cache):
    return DataConfig(source=str(folder), cache=cache, sequence=32, batch=BATCH, validation=0.2)


@pytest.fixture(params=["text", "task", "mixture"])
def data(request, config, tmp_path):
    if request.param == "mixture":  # of text and of the same text, prepared
        made = prepare(override(config, "sequence=64"), tmp_path / "set", align=8)
        mix = json.dumps({config.source: 0.6, str(made.folder): 0.4})
        return override(config, "source=stdlib", f"mix={mix}")
    task = () if request.param == "text" else ("task=mqar", "task.vocab=40", "task.examples=20")
    return override(config, *task)


@st.composite
def splits(draw):
    """The rows of each of several processes, which together are all rows of a batch."""
    order = draw(st.permutations(range(BATCH)))
    cuts = sorted(draw(st.sets(st.integers(1, BATCH - 1))))
    return [order[a:b] for a, b in itertools.pairwise([0, *cuts, BATCH])]


def joined(split, parts):
    """The whole batches of the batches of all processes."""
    whole = []
    for batches in zip(*parts, strict=True):
        batch = {name: np.empty((BATCH, 32), a.dtype) for name, a in batches[0].items()}
        for rows, part in zip(split, batches, strict=True):
            for name, array in part.items():
                batch[name][rows] = array
        whole.append(batch)
    return whole


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=splits(), after=splits(), steps=st.integers(0, 9), epochs=st.sampled_from([None, 2]))
def test_any_processes_resumed_by_others_give_the_same_batches(data, before, after, steps, epochs):
    def loaders(split):
        return [make_loader(data, "train", align=8, epochs=epochs, rows=rows) for rows in split]

    expected = list(itertools.islice(loaders([None])[0], 14))
    first = loaders(before)
    parts = [list(itertools.islice(loader, steps)) for loader in first]
    states = [json.dumps(loader.get_state(), sort_keys=True) for loader in first]
    assert len(set(states)) == 1
    second = loaders(after)
    for loader in second:
        loader.set_state(json.loads(states[0]))
    rest = [list(itertools.islice(loader, 14 - steps)) for loader in second]
    found = joined(before, parts) + joined(after, rest)
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("data", ["text", "task"], indirect=True)
def test_positions_of_earlier_versions_are_read_if_of_one_process(data):
    """They were of processes that read documents of their own."""
    loader = make_loader(data, "train", align=8)
    for _ in range(3):
        next(loader)
    state = loader.get_state()
    state["identity"]["processes"] = 1
    resumed = make_loader(data, "train", align=8, rows=[4])
    resumed.set_state(state)
    np.testing.assert_array_equal(next(resumed)["inputs"], next(loader)["inputs"][[4]])
    state["identity"]["processes"] = 4
    with pytest.raises(ConfigError, match=r"by one of 4 processes .* start a new run") as error:
        resumed.set_state(state)
    assert "\n" not in str(error.value)


def test_batches_are_those_of_earlier_versions(config):
    """The digests were written by the code of commit b0b78c2."""
    found = {}
    for split, epochs in (("train", None), ("train", 1), ("validation", None)):
        digest = hashlib.sha256()
        loader = make_loader(config, split, align=8, epochs=epochs)
        for batch in itertools.islice(loader, 40):
            for name in sorted(batch):
                digest.update(np.ascontiguousarray(batch[name]).tobytes())
        found[f"{split} {epochs}"] = digest.hexdigest()[:16]
    assert found == EARLIER


EARLIER = {
    "train None": "af4750b2a1fb25db",
    "train 1": "a4c91b70183add85",
    "validation None": "ea2bcc6a026b61a4",
}
