"""The perplexity of text, against a count by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from miras.analysis.eval import perplexity
from miras.analysis.eval.perplexity import EDGES, Perplexity, PerplexityResults
from miras.cli.perplexity import tables
from miras.data import DataConfig, make_tokenizer
from miras.errors import ConfigError
from miras.models import LanguageModel, LanguageModelConfig
from miras.tasks import Task
from miras.train import Run, RunConfig
from tests.analysis.eval.test_continuations import MATRIX, Slow

TEXTS = ("the old  sea\n", "a hill", "sky")  # 3, 2 and 1 words


@pytest.fixture(scope="module")
def run():
    model = LanguageModelConfig(MATRIX, width=8, layers=1, heads=1, chunk=4)
    config = RunConfig(model, DataConfig(sequence=48, batch=2))
    return Run(config, LanguageModel(model, nnx.Rngs(0)), 7, {}, make_tokenizer("byte"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("text")
    for n, text in enumerate((*TEXTS, "")):
        (made / f"{n}.txt").write_text(text)
    rows = [json.dumps({"text": text}) for text in TEXTS]
    (made.parent / "rows.jsonl").write_text("\n".join(rows))
    return made


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Buckets from the tokens 1, 4 and 16, and pieces of 16 tokens."""
    monkeypatch.setattr(perplexity, "EDGES", (1, 4, 16))
    make, alone = perplexity.make_reader, perplexity.RowReader

    def with_one_size(reader):
        reader.sizes = (16,)
        return reader

    monkeypatch.setattr(perplexity, "make_reader", lambda run: with_one_size(make(run)))
    monkeypatch.setattr(perplexity, "RowReader", lambda *args: with_one_size(alone(*args)))


def ids(text):
    return np.append(256, np.frombuffer(text.encode(), np.uint8)).astype(np.int32)


def by_hand(slow, over):
    """(position, nats) of every token of text."""
    if over == "document":
        each = [slow.score(ids(text), 1)[0] for text in TEXTS]
        return [(n, -x) for logprobs in each for n, x in enumerate(logprobs, 1)]
    whole = np.concatenate([ids(text) for text in TEXTS])
    logprobs = slow.score(whole, 1)[0]
    return [(n, -x) for n, x in enumerate(logprobs, 1) if whole[n] != 256]


@pytest.mark.parametrize("over", ["document", "stream"])
@pytest.mark.parametrize("source", ["files", "rows"])
def test_sums_are_those_of_a_count_by_hand(over, source, run, folder):
    path = folder if source == "files" else folder.parent / "rows.jsonl"
    done = []
    found = perplexity.evaluate_perplexity(
        run, str(path), Perplexity(over=over), name="a run", progress=done.append
    )
    counted = by_hand(Slow(run.model), over)
    nats, size = sum(x for _, x in counted), sum(map(len, TEXTS))
    assert (found.documents, found.words, found.all.tokens) == (3, 6, size)
    assert sum(done) == size + 3
    assert found.all.bytes == size
    assert found.word_perplexity == pytest.approx(math.exp(nats / 6), rel=1e-4)
    assert found.all.perplexity == pytest.approx(math.exp(nats / size), rel=1e-5)
    assert found.byte_perplexity == found.all.perplexity
    assert found.all.bits_per_byte == pytest.approx(nats / size / math.log(2), rel=1e-5)
    for bucket, (first, end) in zip(found.buckets, ((1, 4), (4, 16), (16, 99)), strict=True):
        own = [x for n, x in counted if first <= n < end]
        assert bucket.tokens == len(own)
        assert bucket.nats == pytest.approx(sum(own), rel=1e-5)
    saved = json.loads(found.to_json())
    assert saved["task"] == {"kind": "perplexity", "over": over}
    assert [x["first"] for x in saved["positions"]] == [1, 4, 16][: 2 + (over == "stream")]
    whole, by_position = tables(found)
    assert whole.row_count == 8
    assert by_position.row_count == len(saved["positions"])


def test_buckets_reach_beyond_a_million_tokens(monkeypatch):
    monkeypatch.undo()
    assert EDGES == (1, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
    found = PerplexityResults("", 0, "", Perplexity())
    positions = np.array([1, 63, 64, 1048575, 1048576, 3_000_000])
    found.add(positions, np.full(6, -2.0), np.full(6, 3.0))
    assert [bucket.tokens for bucket in found.buckets] == [2, 1, 0, 0, 0, 0, 0, 1, 2]
    assert found.all.nats == 12
    assert found.all.bytes == 18


@pytest.mark.parametrize(
    "parts", [("one two", " three"), ("on", "e t", "wo three"), ("one ", "two three\n")]
)
def test_words_are_counted_across_parts(parts):
    found = PerplexityResults("", 0, "", Perplexity())
    assert list(perplexity._counted(found, [part.encode() for part in parts]))
    assert found.words == 3


def test_an_infinite_perplexity_is_null():
    found = PerplexityResults("", 0, "", Perplexity(), words=1)
    found.add(np.arange(1, 9), np.full(8, -100.0), np.ones(8))
    assert json.loads(found.to_json())["all"]["word_perplexity"] is None
    assert found.word_perplexity == math.inf


def test_what_cannot_be_is_told_in_a_sentence(run, tmp_path, refused):
    Path(tmp_path, "empty.txt").write_text("")
    with pytest.raises(ConfigError, match="has no text: give a file with at least one token"):
        perplexity.evaluate_perplexity(run, str(tmp_path / "empty.txt"))
    symbols = DataConfig(task=Task.registry.build("mqar"))
    other = run._replace(config=RunConfig(run.config.model, symbols))
    with pytest.raises(ConfigError, match="perplexity needs a run that was trained on text"):
        perplexity.evaluate_perplexity(other, str(tmp_path))
    assert "needs --data FILE" in refused("eval", "run", "--task", "perplexity")
    argv = ("eval", "run", "--task", "perplexity", "--data", "x")
    assert "--depths does not apply to task perplexity" in refused(*argv, "--depths", "1")
    assert "'document', 'stream'" in refused(*argv, "over=file")
