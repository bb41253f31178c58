"""Mixtures: shares of the weights, each source as it is alone, positions that restore."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miras.analysis.eval import evaluate
from miras.cli.runs import run_config, with_source
from miras.config import FrozenMapping, config_hash, from_json, override, to_json
from miras.data import DataConfig, make_loader
from miras.data.mixture import MixedRows
from miras.data.prepared.prepare import prepare
from miras.data.text.corpus import open_documents
from miras.errors import ConfigError
from miras.tasks import Task
from miras.train.runs import provenance

WEIGHTS = {"letters": 0.7, "digits": 0.3}


@pytest.fixture
def config(tmp_path, cache):
    """A mixture of documents of letters, twice as many, and documents of digits."""
    rng = np.random.default_rng(0)
    for name, first, count in (("letters", 97, 30), ("digits", 48, 15)):
        (tmp_path / name).mkdir()
        for n in range(count):
            text = rng.integers(first, first + 10, 200, np.uint8).tobytes()
            (tmp_path / name / f"{n}.txt").write_bytes(text)
    mix = {str(tmp_path / name): weight for name, weight in WEIGHTS.items()}
    return DataConfig(mix=FrozenMapping(mix), cache=cache, sequence=32, batch=4, validation=0.2)


def alone(config, name, *changes):
    (source,) = (source for source in config.mix if source.endswith(name))
    return override(config, "mix={}", f"source={source}", *changes)


def is_letters(row):
    return row.max() >= 97


def rows_of(loader, count=None):
    rows = (row for batch in loader for row in batch["targets"] if row.any())
    return list(itertools.islice(rows, count))


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=2, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
)
def test_the_first_rows_have_the_shares_of_the_weights(weights, seed, count):
    class Endless:
        rows = 0

        def fill(self, batch, place):
            self.rows += 1
            return True

    streams = [Endless() for _ in weights]
    mixture = MixedRows(streams, weights, seed)
    assert all(mixture.fill({}, None) for _ in range(count))
    found = np.array([stream.rows for stream in streams])
    expected = count * np.array(weights) / sum(weights)
    assert found.sum() == count
    assert (np.abs(found - expected) <= len(weights)).all()


def test_each_source_has_the_rows_that_it_has_alone(config):
    rows = rows_of(make_loader(config, "train", align=8), 100)
    letters = [row for row in rows if is_letters(row)]
    digits = [row for row in rows if not is_letters(row)]
    assert len(letters) in (69, 70, 71)
    for name, found in (("letters", letters), ("digits", digits)):
        expected = rows_of(make_loader(alone(config, name), "train", align=8), len(found))
        np.testing.assert_array_equal(found, expected)
    sources = [is_letters(row) for row in rows]
    other = rows_of(make_loader(override(config, "seed=1"), "train", align=8), 100)
    assert sources != [is_letters(row) for row in other]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_finite_pass_has_every_token_of_every_source_once(config, split):
    found = sum(
        np.bincount(batch["targets"][batch["mask"]], minlength=256)
        for batch in make_loader(config, split, align=8, epochs=1)
    )
    documents = [open_documents(alone(config, name), split) for name in WEIGHTS]
    text = b"".join(itertools.chain(*documents))
    np.testing.assert_array_equal(found, np.bincount(np.frombuffer(text, np.uint8), minlength=256))


@pytest.mark.parametrize(("steps", "epochs"), [(5, None), (21, 1)])
def test_positions_restore_in_any_order_of_the_sources(config, steps, epochs):
    loader = make_loader(config, "train", align=8, epochs=epochs)
    for _ in range(steps):
        next(loader)
    state = json.loads(json.dumps(loader.get_state()))
    mirrored = FrozenMapping(reversed(list(config.mix.items())))
    twice = FrozenMapping({source: 2 * weight for source, weight in mirrored.items()})
    for mix in (mirrored, twice):
        other = DataConfig(**{**vars(config), "mix": mix})
        resumed = make_loader(other, "train", align=8, epochs=epochs, rows=[2, 0])
        resumed.set_state(state)
        expected = make_loader(config, "train", align=8, epochs=epochs)
        expected.set_state(state)
        for a, b in itertools.islice(zip(resumed, expected, strict=True), 12):
            for name in a:
                np.testing.assert_array_equal(a[name], b[name][[2, 0]])
    changed = FrozenMapping(dict.fromkeys(config.mix, 1.0))
    with pytest.raises(ConfigError, match=r"belongs to other data, as mix was \["):
        make_loader(
            DataConfig(**{**vars(config), "mix": changed}), "train", align=8, epochs=epochs
        ).set_state(state)


def test_a_prepared_set_may_be_one_of_the_sources(config, tmp_path):
    made = prepare(alone(config, "digits"), tmp_path / "set", align=8)
    (letters,) = (source for source in config.mix if source.endswith("letters"))
    mix = json.dumps({letters: 1, str(made.folder): 1})
    mixed = override(config, "mix={}", f"mix={mix}")
    rows = rows_of(make_loader(mixed, "train", align=8), 20)
    assert sum(map(is_letters, rows)) in (9, 10, 11)


def test_a_mixture_is_a_config(config):
    assert from_json(DataConfig, to_json(config)) == config
    assert config_hash(config) != config_hash(DataConfig(sequence=32, batch=4, validation=0.2))
    assert override(DataConfig(), 'mix={"a": 3, "b": 1}').mix == {"a": 3.0, "b": 1.0}


@pytest.mark.parametrize(
    ("assignments", "match"),
    [
        (['mix={"a": 0.5, "b": -1}'], r"gives 'b' the weight -1: give a weight above 0"),
        (['mix={"a": 0.5, "b": 0}'], r"gives 'b' the weight 0: "),
        (['mix={"a": "much", "b": 1}'], r"mix\.a='much' is not a number"),
        (['mix={"a": 1}'], r"has one source: use data\.source=a, or add another"),
        (['mix={"": 1, "b": 1}'], r"names the source ''"),
        (["mix=a"], r"mix='a' is not a dict of a number"),
        (["mix={a: 1}"], r"is not valid JSON"),
        (["source=c", 'mix={"a": 1, "b": 1}'], r"source='c' and data\.mix are both given"),
        (["task=mqar", 'mix={"a": 1, "b": 1}'], r"a task has rows of its own"),
    ],
)
def test_what_is_no_mixture(assignments, match):
    with pytest.raises(ConfigError, match=match) as error:
        override(DataConfig(), *assignments)
    assert "\n" not in str(error.value)


def test_a_mixture_is_not_one_text(config):
    with pytest.raises(ConfigError, match=r"names 2 sources, but one text is read here"):
        open_documents(config, "validation")


def test_the_sources_of_a_run_are_found_from_another_folder(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = override(DataConfig(), f"mix={json.dumps(WEIGHTS)}")
    found = provenance._with_absolute_paths(relative, str(tmp_path))
    assert found.mix == config.mix


def test_a_task_of_text_needs_the_text_of_a_run_on_a_mixture(config):
    task = Task.registry.build("niah")
    with pytest.raises(ConfigError, match=r"trained on a mixture .* with --data"):
        evaluate._data(config, task, None)
    assert evaluate._data(config, task, "texts").source == "texts"
    words = [f"data.mix={json.dumps(dict(config.mix))}"]
    with pytest.raises(ConfigError, match=r"--data and data\.mix are both given"):
        run_config("yaad", words, "texts")
    saved = run_config("yaad", words, None)
    assert with_source(saved, "texts").data.source == "texts"
