"""MAC, MAG, MAL, LMM and sliding windows against NumPy written from the paper, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.models.blocks import Block, Inputs
from tests.models import oracle_titans as oracle

pytestmark = pytest.mark.usefixtures("float64")

SMALL = ("layers=2", "width=8", "heads=2", "chunk=4", "attention.segment=8")
ORACLES = {
    "lmm": oracle.lmm,
    "mac": oracle.mac,
    "mag": oracle.mag,
    "mal": oracle.mal,
    "S": oracle.window_attention,
}


def made(kind: str, persistent: int, window: int = 5):
    """A block whose parameters are all off their start, and them in float64."""
    options = (*SMALL, f"attention.persistent={persistent}", f"attention.window={window}")
    architecture = "lmm" if kind == "S" else kind
    name = f"architecture={architecture}"
    config = miras.override(miras.preset("titans_lmm"), *options, name)
    block = Block(config, "S" if kind == "S" else "M", nnx.Rngs(0))
    graph, params = nnx.split(block)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))

    def moved(p):
        return jnp.asarray(p, jnp.float64) + 0.1 * jax.random.normal(next(keys), p.shape)

    params = jax.tree.map(moved, params)
    return config, graph, params


@functools.partial(jax.jit, static_argnums=0)
def run(graph, params, x, state=None, ids=None, mask=None):
    block = nnx.merge(graph, params)
    return block(x, state, Inputs(ids, mask), 0.0, segments_at_chunks=False, health=False)[:2]


@pytest.mark.parametrize("persistent", [0, 3])
@pytest.mark.parametrize("kind", ORACLES)
def test_a_block_is_the_papers_equations(kind, persistent):
    config, graph, params = made(kind, persistent)
    x = np.random.default_rng(0).normal(size=(2, 21, 8))
    got, _ = run(graph, params, x)
    plain = jax.tree.map(np.asarray, nnx.to_pure_dict(params))
    options = {"window": 5}
    if kind != "S":
        options = {"chunk": 4, "max_lr": config.rule.algorithm.max_lr}
        if kind != "lmm":
            options |= {"window": 5, "segment": 8}
    for row in range(2):
        want = oracle.block(plain, x[row], ORACLES[kind], **options)
        np.testing.assert_allclose(got[row], want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ORACLES)
def test_a_call_split_anywhere_is_the_whole(kind):
    """Inside a chunk, inside a segment, at their edges, and token by token."""
    _, graph, params = made(kind, 2)
    x = np.random.default_rng(1).normal(size=(2, 27, 8))
    want, _ = run(graph, params, x)
    for cuts in ((3, 8, 16, 21), tuple(range(1, 27))):
        state, parts = None, []
        for first, last in zip((0, *cuts), (*cuts, 27)):
            y, state = run(graph, params, x[:, first:last], state)
            parts.append(y)
        np.testing.assert_allclose(np.concatenate(parts, 1), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ORACLES)
def test_documents_anywhere_are_separate_and_masked_tokens_are_not_seen(kind):
    _, graph, params = made(kind, 2)
    x = np.random.default_rng(2).normal(size=(2, 27, 8))
    for edge in (16, 11):  # at a segment's edge, and inside one
        ids = np.where(np.arange(27) < edge, 1, 2)[None].repeat(2, 0)
        got, _ = run(graph, params, x, None, ids)
        first, _ = run(graph, params, x[:, :edge])
        second, _ = run(graph, params, x[:, edge:])
        np.testing.assert_allclose(got, np.concatenate([first, second], 1), rtol=1e-9, atol=1e-9)
    mask = np.ones((2, 27), bool)
    mask[:, 9:12] = False
    base, _ = run(graph, params, x, None, None, mask)
    other = x.copy()
    other[:, 9:12] = 5.0
    changed, _ = run(graph, params, other, None, None, mask)
    np.testing.assert_allclose(changed[mask], base[mask], rtol=1e-9, atol=1e-9)


def test_the_last_read_follows_each_token_and_the_retrieval_does_not():
    """Where the printed MAC would leak: a later token of the segment changes nothing before it."""
    _, graph, params = made("mac", 2)
    x = np.random.default_rng(3).normal(size=(1, 16, 8))
    base, _ = run(graph, params, x)
    for t in (1, 5, 9, 15):
        other = x.copy()
        other[:, t] += 1.0
        changed, _ = run(graph, params, other)
        np.testing.assert_array_equal(changed[:, :t], base[:, :t])
        assert np.abs(changed[:, t:] - base[:, t:]).max(axis=(0, 2)).min() > 0


@pytest.mark.parametrize("rule", ["yaad", "moneta", "memora", "gated_deltanet", "mesa", "rwkv7"])
def test_any_rule_can_be_the_memory_of_mac(rule):
    config = miras.override(miras.preset(rule), *SMALL, "architecture=mac", "attention.window=8")
    graph, params = nnx.split(Block(config, "M", nnx.Rngs(0)))
    x = np.random.default_rng(4).normal(size=(2, 19, 8)).astype(np.float32)
    want, _ = run(graph, params, x)
    _, state = run(graph, params, x[:, :10])
    got, _ = run(graph, params, x[:, 10:], state)
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want[:, 10:], atol=1e-4)
