"""Rows of any length in few shapes: as a slow loop scores and decodes them one by one."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from miras.analysis.eval.completions import complete
from miras.analysis.eval.continuations import Continuation, score_continuations, score_texts
from miras.analysis.eval.row_reader import RowReader
from miras.data.tokenizers.byte import ByteTokenizer
from miras.models import LanguageModel, LanguageModelConfig
from miras.models.scoring import _score
from miras.rule.rule import Rule

ROOM = 48  # tokens of the longest row, to which the slow loop pads
MATRIX = Rule(memory="matrix", bias="dot", retention="none", algorithm="gd")
ATTENTION = Rule(memory="kv", bias="l2", retention="none", algorithm="nonparametric")


@pytest.fixture(scope="module", params=[MATRIX, ATTENTION], ids=["matrix", "attention"])
def reader(request):
    """Reads three rows at once, in pieces of 16 tokens."""
    config = LanguageModelConfig(request.param, width=8, layers=1, heads=1, chunk=4)
    made = RowReader(LanguageModel(config, nnx.Rngs(0)), 3)
    made.sizes = (16,)
    return made


class Slow:
    """Reads one row at a time, whole and from its start."""

    def __init__(self, model):
        graph, params = nnx.split(model)
        forward = jax.jit(lambda params, tokens: nnx.merge(graph, params)(tokens)[0])
        self.forward = functools.partial(forward, params)

    def logits(self, tokens):
        padded = np.zeros((1, ROOM), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(self.forward(padded)[0], np.float64)

    def score(self, tokens, given):
        """Log-probabilities of the tokens after the first `given`, and whether all are greedy."""
        logits = self.logits(tokens)
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        each = [logprobs[n - 1, tokens[n]] for n in range(given, len(tokens))]
        greedy = [logits[n - 1].argmax() == tokens[n] for n in range(given, len(tokens))]
        return np.array(each), all(greedy)

    def decode(self, tokens, length):
        for _ in range(length):
            tokens = np.append(tokens, self.logits(tokens)[len(tokens) - 1].argmax())
        return tokens[-length:].astype(np.int32)


@pytest.fixture(scope="module")
def slow(reader):
    return Slow(reader.model)


def ids(length, seed):
    return np.random.default_rng(seed).integers(0, 256, length).astype(np.int32)


def started(length, seed):
    return np.append(np.int32(256), ids(length, seed))


def test_continuations_are_scored_as_one_by_one(reader, slow):
    contexts = [started(n, n) for n in (0, 5, 21, 30, 7)]
    sizes = [(0, 3), (1, 1), (1, 9), (2, 17), (0, 12), (3, 2), (4, 8), (3, 0), (1, 4)]
    pairs = [Continuation(contexts[c], ids(n, 50 + n)) for c, n in sizes]
    greedy = slow.decode(contexts[4], 6)
    pairs += [Continuation(contexts[4], greedy), Continuation(contexts[4], greedy[:1])]
    done = []
    found = score_continuations(reader, pairs, done.append)
    assert sum(done) == len(pairs)
    for pair, got in zip(pairs, found, strict=True):
        each, taken = slow.score(np.concatenate(pair), len(pair.context))
        np.testing.assert_allclose(got.logprob, each.sum(), atol=1e-4)
        assert got.greedy == taken
    assert [got.greedy for got in found[-3:]] == [False, True, True]


def test_a_context_is_read_once_and_all_lengths_take_one_program(reader, monkeypatch):
    read, tokens = reader.read, []
    monkeypatch.setattr(
        reader,
        "read",
        lambda texts, *args: tokens.append(sum(map(len, texts))) or read(texts, *args),
    )
    programs = _score._cache_size()
    context = started(29, 1)
    score_continuations(reader, [Continuation(context, ids(n, n)) for n in (3, 5, 7, 14)])
    assert tokens == [30, 14 + 7 + 5, 3]
    assert _score._cache_size() - programs <= 1


def test_texts_are_scored_whole(reader, slow):
    texts = [started(n, n) for n in (40, 0, 17, 3)]
    for text, got in zip(texts, score_texts(reader, texts), strict=True):
        np.testing.assert_allclose(got, slow.score(text, 1)[0], atol=1e-4)


def test_completions_end_at_stop_strings_and_are_those_of_greedy_decoding(reader, slow):
    contexts, tokenizer = [started(n, n) for n in (0, 5, 21, 30, 7)], ByteTokenizer()
    whole = complete(reader, tokenizer, contexts, 6)
    alone = [slow.decode(context, 6) for context in contexts]
    kept = [own[: list(own).index(256)] if 256 in own else own for own in alone]
    assert whole == [tokenizer.decode(own) for own in kept]
    stop = next(text for text in whole if len(set(text)) > 1)[1:3]
    stopped = complete(reader, tokenizer, contexts, 6, ["", stop, "never found"])
    assert stopped == [text.split(stop)[0] for text in whole]
    assert stopped != whole
    assert complete(reader, tokenizer, contexts[:1], 0) == [""]


def test_pieces_double_up_to_about_a_thousand_tokens():
    for chunk, sizes in {
        1: (16, 32, 64, 128, 256, 512, 1024),
        48: (48, 96, 192, 384, 768, 1008),
        2048: (2048,),
    }.items():
        config = LanguageModelConfig(MATRIX, width=8, layers=1, heads=2, chunk=chunk)
        model = nnx.eval_shape(lambda config=config: LanguageModel(config, nnx.Rngs(0)))
        assert RowReader(model, 1).sizes == sizes
