"""TNT against NumPy written from the paper, in float64, and against what it reduces to."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras import bias, optim, retention
from miras.errors import ConfigError
from miras.layers import LayerConfig, MemoryConfig, MemoryLayer
from miras.layers.keys import Associations
from miras.memory import MLP, Matrix
from miras.mixers import MixerConfig
from miras.mixers.tnt import TNTMixer
from miras.testing import check_mixer
from tests.conformance import oracle_presets
from tests.mixers import layers
from tests.mixers import oracle_tnt as oracle
from tests.mixers.layers import HEADS, WIDTH, close

pytestmark = pytest.mark.usefixtures("float64")

T = 21
SMALL = TNTMixer(global_chunk=5, local_chunks=(2, 4), shard=8)
RULES = {
    "titans_lmm": miras.Rule(
        MLP(residual=True, norm="layer"),
        bias.L2Loss(),
        retention.L2(decay=0.9),
        optim.Momentum(lr=0.1, max_lr=0.5, momentum=0.5),
    ),
    "yaad": miras.Rule(
        MLP(residual=True, norm="layer"),
        bias.Huber(variant="mixture", delta=2.0),
        retention.L2(decay=0.9),
        optim.GD(lr=0.1, max_lr=0.5),
    ),
    "deltanet": miras.Rule(
        Matrix(), bias.L2Loss(), retention.NoRetention(), optim.GD(lr=0.5, max_lr=1.0)
    ),
}


def made(rule: str = "deltanet", tnt: TNTMixer = SMALL):
    """The graph of a layer, and its parameters, all off their start, in float64."""
    return layers.build(tnt, RULES[rule], LayerConfig(activation="silu"))


@functools.partial(jax.jit, static_argnums=0, static_argnames="promised")
def run(graph, params, x, state=None, ids=None, mask=None, promised=False):
    layer = nnx.merge(graph, params)
    return layer(x, state=state, segment_ids=ids, mask=mask, segments_at_chunks=promised)[:2]


def tokens(seed=0, rows=2, length=T):
    return layers.tokens(length, rows, seed)


def wanted(rule, tnt, params, document):
    """The oracle's outputs of one document [T, width]."""
    return oracle.layer(
        layers.plain(params),
        document,
        oracle_presets.PARTS[rule],
        max_lr=RULES[rule].algorithm.max_lr,
        global_chunk=tnt.global_chunk,
        local_chunks=tnt.local_chunks,
        shard=tnt.shard,
        projection=tnt.qk_projection,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "tnt"),
    [
        ("titans_lmm", dataclasses.replace(SMALL, local_chunks=(4,), qk_projection=False)),
        pytest.param(
            "yaad", dataclasses.replace(SMALL, local_chunks=(1,)), marks=pytest.mark.exhaustive
        ),
        ("deltanet", dataclasses.replace(SMALL, local_chunks=(2, 4, 4), shard=4)),
    ],
)
def test_a_layer_is_the_papers_equations(rule, tnt):
    """Documents that begin anywhere, and those that begin with a row, whose shards are folded."""
    graph, params = made(rule, tnt)
    x, edges = tokens(), (0, 11, T)
    ids = np.repeat([3, 1], np.diff(edges))[None].repeat(2, 0)
    folded, _ = run(graph, params, x)
    packed, _ = run(graph, params, x, None, ids)
    for row in range(2):
        close(folded[row], wanted(rule, tnt, params, x[row]))
        for first, last in itertools.pairwise(edges):
            close(packed[row, first:last], wanted(rule, tnt, params, x[row, first:last]))


@pytest.mark.slow
def test_gradients_are_finite_differences_of_the_equations():
    tnt = dataclasses.replace(SMALL, local_chunks=(4,))
    graph, params = made("titans_lmm", tnt)
    x, weights = tokens(rows=1, length=16), tokens(1, rows=1, length=16)

    def loss(params):
        return jnp.sum(weights * run(graph, params, x)[0])

    def by_oracle(params):
        return np.sum(weights[0] * wanted("titans_lmm", tnt, params, x[0]))

    leaves, tree = jax.tree.flatten(params)
    slopes = tree.flatten_up_to(jax.grad(loss)(params))
    rng = np.random.default_rng(2)
    for _ in range(3):
        along = [rng.normal(size=leaf.shape) for leaf in leaves]
        sides = [
            by_oracle(tree.unflatten([a + h * d for a, d in zip(leaves, along)]))
            for h in (1e-5, -1e-5)
        ]
        want = (sides[0] - sides[1]) / 2e-5
        got = sum(np.sum(np.asarray(s) * d) for s, d in zip(slopes, along))
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.slow
def test_a_call_split_anywhere_is_the_whole():
    """Inside chunks and shards, at their edges, and token by token; also the state."""
    graph, params = made()
    x = tokens()
    want, end = run(graph, params, x)
    for cuts in ((3, 8, 16, 19), tuple(range(1, T))):
        state, parts = None, []
        for first, last in zip((0, *cuts), (*cuts, T)):
            y, state = run(graph, params, x[:, first:last], state)
            parts.append(y)
        close(np.concatenate(parts, 1), want)
        jax.tree.map(close, state, end)


@pytest.mark.slow
def test_folded_shards_are_segments_and_documents_at_shards_are_separate():
    tnt = dataclasses.replace(SMALL, global_chunk=4)  # documents begin at multiples of 8
    graph, params = made(tnt=tnt)
    x = tokens()
    ids = np.repeat([0, 4, 2], [8, 8, 5])[None].repeat(2, 0)

    def loss(params, promised):
        y, state = run(graph, params, x, None, ids, promised=promised)
        return jnp.sum(jnp.sin(y)), (y, state)

    both = [jax.value_and_grad(loss, has_aux=True)(params, promised) for promised in (True, False)]
    jax.tree.map(close, *both)
    (_, (y, _)), _ = both[0]
    for first, last in ((0, 8), (8, 16), (16, T)):
        close(y[:, first:last], run(graph, params, x[:, first:last])[0])


def test_masked_tokens_are_not_seen():
    graph, params = made()
    x, own = tokens(3), np.ones(T, bool)
    own[5:12] = False
    want, after = run(graph, params, x[:, own])
    hidden = np.where(own[None, :, None], x, np.nan)
    got, state = run(graph, params, hidden, None, None, own[None].repeat(2, 0))
    close(got[:, own], want)
    jax.tree.map(close, state, after)


def test_without_local_memories_it_is_the_rule_read_at_its_snapshot():
    graph, own = made(tnt=TNTMixer(global_chunk=4, local_chunks=()))
    rule = dataclasses.replace(RULES["deltanet"], read="snapshot")
    alone = MemoryLayer(
        MemoryConfig(rule, chunk=4),
        WIDTH,
        HEADS,
        config=LayerConfig(activation="silu"),
        rngs=nnx.Rngs(0),
    )
    base, params = nnx.split(alone)
    plain = nnx.to_pure_dict(own)
    nnx.replace_by_pure_dict(params, plain | {"fast": plain["fast"]["document"]})
    x = tokens(4)
    np.testing.assert_array_equal(run(graph, own, x)[0], run(base, params, x)[0])


def test_one_shard_without_projection_is_a_sum_of_memories():
    tnt = TNTMixer(global_chunk=4, local_chunks=(2, 8), shard=32, qk_projection=False)
    fast = MixerConfig(tnt, RULES["deltanet"]).build(WIDTH, HEADS, nnx.Rngs(0)).fast
    rng = np.random.default_rng(5)
    q, k, v = (jnp.asarray(rng.normal(size=(2, T, HEADS, WIDTH // HEADS))) / 4 for _ in "qkv")
    x = jnp.asarray(tokens(6))
    call = {"segment_ids": None, "mask": None, "state": None, "segments_at_chunks": False}
    streams = Associations(q, k, v, None)
    got, _, _ = fast(streams, x, **call)
    memories = (fast.document, *fast.shard.each)
    close(got, sum(memory(streams, x, **call)[0] for memory in memories))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": 20}, "tnt.shard=20 is no multiple of the local chunk 8.*use shard=24"),
        ({"local_chunks": (0,)}, "at least 1 each"),
        ({"global_chunk": 0}, "tnt.global_chunk=0 must be at least 1"),
    ],
)
def test_options_out_of_range_are_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        TNTMixer(**options)


@pytest.mark.exhaustive
def test_the_mixer_keeps_the_contract():
    check_mixer(MixerConfig(mixer=SMALL, rule=RULES["deltanet"]))
