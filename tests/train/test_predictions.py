"""Predictions of tokens in chunks: those of all logits at once, which never exist."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.backends.pallas.trace.jaxprs import equations
from miras.cli.runs import run_config
from miras.train.accuracy import Answering
from miras.train.evaluate import make_sums_step
from miras.train.predictions import predictions
from miras.train.state import structure
from tests.tolerances import tolerance

B, T, WIDTH, VOCAB = 4, 12, 6, 16


def inputs(seed=0):
    """Features and a head of small integers, so that logits are exact and often equal."""
    rng = np.random.default_rng(seed)
    x, head = rng.integers(-1, 2, (B, T, WIDTH)), rng.integers(-1, 2, (VOCAB, WIDTH))
    return x.astype(np.float32), head.astype(np.float32), rng.integers(0, VOCAB, (B, T))


def oracle(x, head, targets, candidates):
    """Nats and hits, token by token in NumPy."""
    nats, correct = np.zeros((B, T)), np.zeros((B, T), bool)
    for b, t in np.ndindex(B, T):
        logits = head.astype(np.float64) @ x[b, t]
        nats[b, t] = np.log(np.exp(logits).sum()) - logits[targets[b, t]]
        correct[b, t] = np.argmax(logits[:candidates]) == targets[b, t]
    return nats, correct


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("candidates", [None, 9])
def test_chunks_predict_as_all_logits_at_once(chunk, candidates):
    x, head, targets = inputs()
    nats, correct = predictions(
        jnp.asarray(x), jnp.asarray(head), jnp.asarray(targets), candidates=candidates, chunk=chunk
    )
    want = oracle(x, head, targets, candidates)
    np.testing.assert_array_equal(correct, want[1])
    assert 0 < want[1].sum() < want[1].size
    np.testing.assert_allclose(nats, want[0], atol=tolerance(np.float32, VOCAB, 4))


def test_answers_never_have_the_logits_of_all_tokens():
    words = ("layers=1", "width=8", "heads=1", "chunk=8", "sequence=32", "batch=4")
    config = run_config("linear_attention", [*words, "model.vocab=4000"], None, rates="raw")
    graphdef, params = structure(config.model)
    shape = 4, 32
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ("inputs", "segment_ids")}
    batch |= {"targets": batch["inputs"], "mask": jax.ShapeDtypeStruct(shape, jnp.bool)}
    batch |= {"target_bytes": jax.ShapeDtypeStruct(shape, jnp.float32)}

    def largest(chunk):
        step = make_sums_step(graphdef, Answering(3000, chunk))
        program = jax.make_jaxpr(step)(params, batch).jaxpr
        return max(math.prod(v.aval.shape) for eqn in equations(program) for v in eqn.outvars)

    assert largest(None) == 4 * 32 * 4000
    assert largest(16) == 16 * 4000
