"""Answers of a model in training, counted on batches whose right ones are known."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras.analysis.eval.evaluate import _rows
from miras.tasks import Opened
from miras.train.accuracy import Answering
from miras.train.evaluate import evaluate, make_sums_step


class Fixed(nnx.Module):
    """Answers every batch with the same logits, which are its features."""

    def __init__(self, logits):
        self.logits = nnx.Param(jnp.asarray(logits))

    def features(self, tokens, *, segment_ids, segments_at_chunks):
        del tokens, segment_ids, segments_at_chunks
        return self.logits[...]

    def head_rows(self):
        return jnp.eye(self.logits.shape[-1])


def test_answers_are_counted_by_token_and_by_row():
    said = np.array([[1, 2, 3, 1], [1, 2, 3, 1], [1, 2, 3, 1], [1, 2, 3, 1]])
    targets = np.array([[0, 2, 3, 0], [0, 2, 1, 0], [2, 0, 0, 0], [1, 2, 3, 1]])
    mask = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    logits = np.where(np.eye(4)[said] > 0, np.log(5.0), 0.0)  # probability 5/8, and 1/8 each
    graphdef, params = nnx.split(Fixed(logits), nnx.Param)
    batch = {
        "inputs": targets, "targets": targets, "segment_ids": mask, "mask": mask,
        "target_bytes": 2.0 * mask,
    }  # fmt: skip
    step = make_sums_step(graphdef, Answering())
    found: Any = evaluate(Answering(), step, nnx.to_pure_dict(params), [batch, batch])
    assert found.rows == 6  # one row of each batch is empty
    assert found.exact_match == pytest.approx(1 / 3)
    assert found.accuracy == pytest.approx(3 / 5)
    nats = -(3 * np.log(5 / 8) + 2 * np.log(1 / 8)) / 5
    assert found.loss == pytest.approx(nats, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(nats / np.log(2) / 2, rel=1e-6)
    assert found.summary == "exact match 0.333, token accuracy 0.600 on held-out rows"


def test_rows_of_every_cell_are_drawn_anew():
    opened = Opened(lambda random, length, depth: int(random.integers(2**60)))  # pyright: ignore
    places = [
        (seed, length, depth) for seed in (0, 1) for length in (64, 65) for depth in (0.0, 0.5, 1.0)
    ]
    drawn = [row for place in places for row in _rows(opened, *place, range(5))]
    assert len(set(drawn)) == 60
