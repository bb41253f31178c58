"""Exact match: against readers that know the answers, or some, and against greedy decoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras.analysis.eval.answers import RowScore, make_predictor, score_rows
from miras.analysis.eval.evaluate import evaluate_task
from miras.analysis.eval.results import CellScore, cell_score, merge
from miras.data import DataConfig, make_tokenizer
from miras.models import LanguageModel, LanguageModelConfig, generate
from miras.rule.rule import Rule
from miras.tasks import Example, seeded
from miras.train import Run, RunConfig, TrainConfig
from tests.tasks.kinds import KINDS

SMALL = LanguageModelConfig(
    Rule(memory="matrix", bias="l2", algorithm="gd"), width=16, layers=2, heads=2, chunk=8
)


def knowing(rows, wrong=()):
    """A reader that gives the rows' answers, but not those at (row, number of the target)."""
    answers = np.zeros((len(rows), len(rows[0].inputs)), np.int32)
    for n, row in enumerate(rows):
        answers[n, row.positions] = row.targets
    for n, i in wrong:
        answers[n, rows[n].positions[i]] += 1
    seen = []

    def read(tokens, state, rest):
        start = 0 if state is None else state
        seen.append((start, tokens.shape[1], rest))
        np.testing.assert_array_equal(
            tokens, np.stack([row.inputs[start : start + tokens.shape[1]] for row in rows])
        )
        return answers[:, start : start + tokens.shape[1]], start + tokens.shape[1]

    return read, seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [64, 100, 671, 1000])
def test_a_reader_that_knows_is_right_and_one_wrong_token_is_not(kind, piece, opened):
    rows = [opened(kind).example(seeded(n, "eval"), 672, 0.5) for n in range(3)]
    read, seen = knowing(rows)
    scores = score_rows(read, rows, piece)
    assert scores == [RowScore(len(row.targets), len(row.targets)) for row in rows]
    assert all(found.exact for found in scores)
    assert [start for start, _, _ in seen] == list(range(0, 672, piece))
    assert all(start + size + rest == 672 for start, size, rest in seen)

    read, _ = knowing(rows, wrong=[(1, 0), (2, len(rows[2].targets) - 1)])
    scores = score_rows(read, rows, piece)
    assert [found.exact for found in scores] == [True, False, False]
    assert scores[1].hits == len(rows[1].targets) - 1


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["matrix", "kv"])
def test_pieces_with_a_carried_state_read_as_the_whole_row_does(memory):
    algorithm = "nonparametric" if memory == "kv" else "gd"
    rule = Rule(memory=memory, bias="l2", retention="none", algorithm=algorithm)
    model = LanguageModel(dataclasses.replace(SMALL, rule=rule), nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (2, 50), 0, 257)
    logits, _ = model(tokens)
    likeliest = np.asarray(jnp.argmax(logits, -1))
    everywhere = np.arange(50, dtype=np.int32)
    rows = [
        Example(np.asarray(read), everywhere, next_)
        for read, next_ in zip(tokens, likeliest, strict=True)
    ]
    for piece in (16, 50):
        assert [found.hits for found in score_rows(make_predictor(model), rows, piece)] == [50, 50]


def test_exact_match_is_that_of_greedy_decoding():
    """Where greedy decoding says the answer the row is right, and elsewhere it is wrong."""
    model = LanguageModel(SMALL, nnx.Rngs(1))
    prompts = np.asarray(jax.random.randint(jax.random.key(1), (6, 20), 0, 257), np.int32)
    said = generate(model, jnp.asarray(prompts), 4, temperature=0.0)
    wanted = said.copy()
    wanted[[1, 3, 5], [0, 2, 3]] += 1  # at the first, a middle and the last token
    rows = [
        Example(
            np.concatenate([prompt, answer[:-1]]).astype(np.int32),
            np.arange(19, 23, dtype=np.int32),
            answer.astype(np.int32),
        )
        for prompt, answer in zip(prompts, wanted, strict=True)
    ]
    exact = [found.exact for found in score_rows(make_predictor(model), rows, 8)]
    assert exact == [True, False, True, False, True, False]


@pytest.fixture
def run(text, cache, make):
    """An untrained run on a task."""

    def made(kind: str) -> Run:
        data = DataConfig(source=str(text), task=make(kind), sequence=672, batch=4, cache=cache)
        config = RunConfig(SMALL, data, TrainConfig())
        return Run(config, None, 7, {}, make_tokenizer("byte"))  # pyright: ignore

    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_has_its_own_rows_and_only_what_is_right_counts(kind, run, make):
    rows = {}

    def read(tokens, state, rest):
        assert state is None
        assert rest == 0
        rows.setdefault(tokens.shape[1], []).extend(row.tobytes() for row in tokens)
        return np.full(tokens.shape, -1), 0

    advanced = []
    results = evaluate_task(
        run(kind),
        make(kind),
        (704, 672),
        (1.0, 0.0, 0.5),
        6,
        predict=read,
        progress=advanced.append,
    )
    assert (results.lengths, results.depths) == ((672, 704), (0.0, 0.5, 1.0))
    assert {length: len(set(found)) for length, found in rows.items()} == {672: 18, 704: 18}
    assert all(len(found) == 24 for found in rows.values())  # batches of 4 are filled up
    assert sum(advanced) == 6 * 3 * (672 + 704)
    assert results.all.examples == 36
    assert results.all.exact == results.all.hits == 0
    assert results.of_length(672).examples == 18
    assert results.of_depth(0.5).examples == 12

    again = {}
    evaluate_task(
        run(kind), make(kind), [672], [0.5], 6, seed=1,
        predict=lambda tokens, *_: (again.setdefault(tokens.tobytes(), tokens) * 0 - 1, 0),
    )  # fmt: skip
    assert not {row.tobytes() for tokens in again.values() for row in tokens} & set(rows[672])


def test_the_interval_is_wilsons():
    """Against the roots of (p - share)^2 = z^2 p (1 - p) / n."""
    for exact, n in ((0, 5), (5, 5), (3, 20), (50, 100)):
        share, z2 = exact / n, 1.959964**2
        roots = np.roots([1 + z2 / n, -(2 * share + z2 / n), share**2])
        low, high = CellScore(n, exact, exact, n).interval
        np.testing.assert_allclose(sorted(roots), [low, high], atol=1e-9)


def test_cells_add_up():
    first = cell_score([RowScore(2, 2), RowScore(1, 2)])
    assert first == CellScore(2, 1, 3, 4)
    assert (first.exact_match, first.accuracy) == (0.5, 0.75)
    assert merge([first, CellScore(3, 3, 6, 6)]) == CellScore(5, 4, 9, 10)
