"""Rows, metrics and options of `task=classify`; its runs are in tests/train/test_classifying.py."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras import Rule
from miras.config import from_json, override, to_json
from miras.data import DataConfig, make_loader, make_tokenizer
from miras.data.labelled.genome import reverse_complement
from miras.data.tokenizers import words
from miras.errors import ConfigError
from miras.models import LanguageModelConfig
from miras.tasks import Classify
from miras.tasks.classification import Classification, matthews_correlation

TOKENIZER = make_tokenizer("nucleotide")
SEQUENCES = ("ACGTNA", "GGA", "TTTTTTC")


@pytest.fixture
def data(tmp_path):
    """Makes the config of three sequences, which are also the test set."""
    for split in ("train", "test"):
        rows = "".join(f"{text},{'ba'[n % 2]}\n" for n, text in enumerate(SEQUENCES))
        (tmp_path / f"{split}.csv").write_text(f"sequence,label\n{rows}")

    def make(*assignments, **fields):
        given = {"tokenizer": "nucleotide", "sequence": 8, "batch": 3, "validation": 0.5} | fields
        made = DataConfig(source=str(tmp_path), task=Classify(classes=("a", "b")), **given)
        return override(made, *assignments)

    return make


def batches(config, split="test", count=1, **options):
    loader = make_loader(config, split, align=4, **options)
    return [next(loader) for _ in range(count)]


def text(row):
    return TOKENIZER.decode(row)


def test_a_row_is_the_document_start_and_the_sequence(data):
    batch = batches(data())[0]
    assert sorted(batch) == ["inputs", "label", "mask", "segment_ids"]
    assert batch["inputs"][:, 0].tolist() == [5] * 3
    lengths = batch["segment_ids"].sum(axis=1)
    assert lengths.tolist() == [7, 4, 8]
    assert [text(row[:n]) for row, n in zip(batch["inputs"], lengths, strict=True)] == list(
        SEQUENCES
    )
    assert batch["label"].tolist() == [1, 0, 1]
    assert batch["mask"].all()
    assert not batch["inputs"][1, 4:].any()


def test_the_last_batch_of_a_pass_has_rows_that_do_not_count(data):
    found = list(make_loader(data(batch=2), "test", align=4))
    assert [batch["mask"].tolist() for batch in found] == [[True, True], [True, False]]
    assert not found[1]["segment_ids"][1].any()


def test_epochs_have_all_rows_in_another_order_and_resume(data):
    config = data(batch=1)
    loader = make_loader(config, "train", align=4)
    count = len({tuple(next(loader)["inputs"][0]) for _ in range(20)})
    rows = [tuple(batch["inputs"][0]) for batch in batches(config, "train", 4 * count)]
    epochs = [rows[n * count :][:count] for n in range(4)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    state = loader.get_state()
    want = [next(loader)["inputs"] for _ in range(5)]
    again = make_loader(config, "train", align=4)
    again.set_state(state)
    np.testing.assert_array_equal([next(again)["inputs"] for _ in range(5)], want)


def test_the_other_strand_is_the_reverse_complement(data):
    batch = batches(data("task.pool_strands=true"))[0]
    lengths = batch["segment_ids"].sum(axis=1)
    other = [text(row[:n]) for row, n in zip(batch["other_strand"], lengths, strict=True)]
    assert other == [reverse_complement(s.encode()).decode() for s in SEQUENCES]
    assert batch["other_strand"][:, 0].tolist() == [5] * 3


def test_training_rows_come_from_both_strands_anew_in_each_epoch(data):
    config = data("task.augment_strand=true", batch=1)
    seen = {text(batch["inputs"][0]).rstrip("A") for batch in batches(config, "train", 40)}
    trained = {text(b["inputs"][0]).rstrip("A") for b in batches(data(batch=1), "train", 10)}
    assert trained < seen
    assert len(seen) == 2 * len(trained)
    first = batches(config, "train", 6)
    for a, b in zip(first, batches(config, "train", 6), strict=True):
        np.testing.assert_array_equal(a["inputs"], b["inputs"])
    assert "".join(text(b["inputs"][0]) for b in batches(config)) in SEQUENCES[0] + "AA"


def test_hidden_tokens_are_n_and_only_in_training(data):
    config = data("task.hide=0.5", batch=1)
    inputs = np.concatenate([batch["inputs"] for batch in batches(config, "train", 60)])
    plain = np.concatenate([batch["inputs"] for batch in batches(data(batch=1), "train", 60)])
    hidden = (inputs != plain) & (plain < 4)
    assert (inputs[hidden] == 4).all()
    letters = (plain[:, 1:] > 0) & (plain[:, 1:] < 4)
    assert 0.4 < hidden[:, 1:][letters].mean() < 0.6
    np.testing.assert_array_equal(batches(config)[0]["inputs"], batches(data(batch=1))[0]["inputs"])


def numpy_words(sequence, k):
    found = []
    for start in range(len(sequence) - k + 1):
        word = sequence[start : start + k]
        number = 4**k if "N" in word else int("".join(str("ACGT".index(c)) for c in word), 4)
        found.append(number)
    return found


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7])
def test_words_are_numbers_to_the_base_of_4(k):
    for sequence in (*SEQUENCES, "ACGTACGTTGCANNACGT"):
        found = words.encode(TOKENIZER.encode(sequence), k)
        assert found.dtype == np.int32
        assert found.tolist() == numpy_words(sequence, k)


def test_rows_of_words(data):
    config = data("task.words=3", "task.pool_strands=true")
    assert config.task.vocabulary() == 66
    batch = batches(config)[0]
    assert batch["inputs"][:, 0].tolist() == [65] * 3
    assert batch["segment_ids"].sum(axis=1).tolist() == [5, 2, 6]
    assert batch["inputs"][0, 1:5].tolist() == numpy_words(SEQUENCES[0], 3)
    other = reverse_complement(SEQUENCES[2].encode()).decode()
    assert batch["other_strand"][2, 1:6].tolist() == numpy_words(other, 3)


def test_other_text_has_classes_too(data):
    batch = batches(data(tokenizer="byte", sequence=8))[0]
    assert batch["inputs"][1].tolist() == [256, *b"GGA", 0, 0, 0, 0]


def test_long_sequences_are_an_error_or_cut(data):
    config = data(sequence=4)
    with pytest.raises(
        ConfigError, match=r"has 7 tokens, .* room for 3 .* data.sequence=8 or more"
    ):
        make_loader(config, "test", align=4)
    batch = batches(override(config, "task.truncate=true"))[0]
    assert [text(row[:n]) for row, n in zip(batch["inputs"], (4, 4, 4), strict=True)] == [
        text[:3] for text in SEQUENCES
    ]


@pytest.mark.parametrize(
    ("assignments", "match"),
    [
        (["task.words=4"], "a sequence has 3 tokens, and a row needs at least 4"),
        (['task.classes=["a","c"]'], "label 'b', which is none of"),
        (["tokenizer=byte", "task.words=2"], "task.words=2 is for nucleotides"),
        (["tokenizer=byte", "task.hide=0.1"], "task.hide is for nucleotides"),
        (["tokenizer=byte", "task.pool_strands=true"], "task.pool_strands is for nucleotides"),
        (["source=stdlib"], "'stdlib' has no labels"),
    ],
)
def test_data_that_does_not_fit_the_task_is_refused(data, assignments, match):
    with pytest.raises(ConfigError, match=match):
        make_loader(data(*assignments), "test", align=4)


@pytest.mark.parametrize(
    ("field", "match"),
    [
        ({"classes": ("a",)}, "two or more different names"),
        ({"classes": ("a", "a")}, "two or more different names"),
        ({"folds": 1}, "task.folds=1 must be 0"),
        ({"folds": 3, "fold": 3}, r"task.fold=3 must lie in \[0, 3\)"),
        ({"fold": 1}, "task.fold=1 must lie"),
        ({"hide": 1.0}, "task.hide=1.0 must lie"),
        ({"words": 0}, "task.words=0 must lie"),
        ({"pooling": "max"}, "'mean', 'last'"),
    ],
)
def test_a_field_out_of_range_is_refused(field, match):
    with pytest.raises(ConfigError, match=match):
        Classify(**field)


def test_classes_are_settled_from_the_source_and_kept_in_json(data, tmp_path):
    config = data("task.classes=none")
    with pytest.raises(ConfigError, match="classes is not given"):
        config.task.objective(config)
    settled = config.task.settled(config)
    assert settled.classes == ("a", "b")
    assert settled.settled(config) is settled
    assert from_json(Classify, to_json(settled)) == settled
    (tmp_path / "one.csv").write_text("sequence,label\nAC,x\nGT,x\n")
    one = override(config, f"source={tmp_path / 'one.csv'}")
    with pytest.raises(ConfigError, match="has one class, 'x'"):
        one.task.settled(one)


MODEL = LanguageModelConfig(
    Rule(memory="matrix", bias="dot", retention="none", algorithm="gd"),
    vocab=6,
    width=8,
    layers=1,
    heads=1,
    chunk=4,
    remat=False,
)


def test_sums_are_those_of_the_rows_one_by_one(data):
    objective = Classification(3, "mean", both_strands=True)
    model = objective.build(MODEL, nnx.Rngs(0))
    batch = batches(data("task.pool_strands=true", batch=4))[0]  # the last row does not count
    sums = objective.sums(model, batch)
    nats, best = 0.0, []
    for n in range(3):
        length = int(batch["segment_ids"][n].sum())
        logits = [
            np.asarray(model(batch[strand][n : n + 1, :length])[0], np.float64)
            for strand in ("inputs", "other_strand")
        ]
        mean = sum(logits) / 2
        nats += math.log(np.exp(mean).sum()) - mean[batch["label"][n]]
        best.append(int(mean.argmax()))
    labels = batch["label"][:3].tolist()
    assert float(sums.nats) == pytest.approx(nats, rel=1e-5)
    assert (int(sums.rows), int(sums.correct)) == (3, sum(map(int.__eq__, best, labels)))
    assert [int(x) for x in sums.labelled] == [labels.count(k) for k in range(3)]
    assert [int(x) for x in sums.predicted] == [best.count(k) for k in range(3)]


def test_the_loss_is_of_one_strand_and_of_the_rows_that_count(data):
    objective = Classification(2, both_strands=True)
    model = objective.build(MODEL, nnx.Rngs(0))
    three, four = (batches(data("task.pool_strands=true", batch=n))[0] for n in (3, 4))
    logits = np.asarray(model(three["inputs"], mask=three["segment_ids"] > 0), np.float64)
    chosen = logits[np.arange(3), three["label"]]
    want = (np.log(np.exp(logits).sum(axis=1)) - chosen).sum()
    for batch in (three, four):
        nats, totals = objective.loss(model, batch)
        assert float(nats) == pytest.approx(want, rel=1e-5)
        assert float(totals.targets) == 3
    assert int(objective.tokens({k: jnp.asarray(v) for k, v in four.items()})) == 19


def test_correlation_of_two_classes_is_that_of_the_table():
    random = np.random.default_rng(0)
    label, best = random.integers(0, 2, (2, 50))
    best[:30] = label[:30]
    want = np.corrcoef(label, best)[0, 1]
    counts = [[float((x == k).sum()) for k in range(2)] for x in (label, best)]
    assert matthews_correlation((label == best).sum(), *counts) == pytest.approx(want, abs=1e-12)


def test_correlation_of_more_classes():
    label, best = np.array([0, 1, 2, 2, 1, 0, 0]), np.array([0, 1, 2, 1, 1, 0, 2])
    x, y = (np.eye(3)[of] - np.eye(3)[of].mean(axis=0) for of in (label, best))
    want = (x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())  # Gorodkin's R
    counts = [[float((of == k).sum()) for k in range(3)] for of in (label, best)]
    assert matthews_correlation(5.0, *counts) == pytest.approx(want, abs=1e-12)
    assert matthews_correlation(3.0, counts[0], [7.0, 0.0, 0.0]) == 0
    assert matthews_correlation(7.0, counts[0], counts[0]) == pytest.approx(1)
