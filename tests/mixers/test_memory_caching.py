"""Memory caching against NumPy written from its equations, in float64, and what it reduces to."""

import jax
import numpy as np
import pytest
from flax import nnx

import miras
from miras.backends.pallas.interpreter import interpreted
from miras.mixers import MemoryCachingMixer, MixerConfig
from miras.testing import check_mixer
from tests.mixers import layers, oracle_caching
from tests.mixers.layers import build, check_pieces, close, plain, run, tokens

pytestmark = pytest.mark.usefixtures("float64")

MLP = {"kind": "mlp", "depth": 2, "expansion": 1, "activation": "gelu", "residual": True,
       "norm": "layer", "eps": 0.1}  # fmt: skip
MATRIX = {"kind": "matrix"}
CASES = {
    "gated": ({}, MLP),
    "soup": ({"combine": "soup"}, MLP),
    "residual_fresh": ({"combine": "residual", "start": "fresh", "max_segments": 2}, MATRIX),
    "sparse_binary": ({"combine": "sparse", "top_k": 1, "segmentation": "binary"}, MATRIX),
    "gated_fresh": ({"start": "fresh"}, MLP),
    "residual": ({"combine": "residual"}, MATRIX),
    "soup_of_a_matrix": ({"combine": "soup"}, MATRIX),
    "soup_fresh": ({"combine": "soup", "start": "fresh"}, MLP),
    "sparse_all": ({"combine": "sparse", "top_k": 1, "softmax_over": "all"}, MATRIX),
    "gated_binary": ({"segmentation": "binary", "max_segments": 2}, MATRIX),
}
QUICK = ("gated", "soup", "sparse_binary")
SAMPLE = [
    pytest.param(name, id=name, marks=[pytest.mark.exhaustive] * (name not in QUICK))
    for name in CASES
]


def others(name):
    """All cases but one, for `make exhaustive`."""
    return [pytest.param(n, marks=pytest.mark.exhaustive) for n in CASES if n != name]


def made(name, chunk=2, segment=4):
    options, memory = CASES[name]
    mixer = MemoryCachingMixer(segment=segment, **options)
    return build(mixer, layers.rule(memory), chunk=chunk)


def expected(name, params, x, chunk=2, segment=4):
    options, memory = CASES[name]
    p = plain(params)
    streams, gates = layers.memory_inputs(p, x, 0.25)
    query = p["fast"].get("query", {}).get("kernel")
    u = None if query is None else np.tensordot(x, query, axes=1)
    parts = {
        "memory": memory, "bias": {"kind": "l2"},
        "retention": {"kind": "l2", "granularity": "head"}, "algorithm": {"kind": "momentum"},
    }  # fmt: skip
    given = {"combine": "gated", **options, "chunk": chunk, "segment": segment}
    y = oracle_caching.caching(parts, p["fast"]["initial"], streams, gates, u, **given)
    return layers.output(p, y, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_the_equations_in_one_call_and_in_pieces(name):
    graph, params = made(name)
    x = tokens(23)
    check_pieces(graph, params, x, (0, 5, 10, 11, 12, 17, 22, 23), expected(name, params, x[0]))


@pytest.mark.exhaustive
@pytest.mark.parametrize("chunk", [1, 16, 64])
@pytest.mark.parametrize("name", CASES)
def test_the_equations_at_other_chunks(name, chunk):
    segment = max(chunk, 4)
    graph, params = made(name, chunk, segment)
    x = tokens(3 * segment + 3)
    close(run(graph, params, x)[0][0], expected(name, params, x[0], chunk, segment))


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        pytest.param([6, 2, 11], id="tiles", marks=pytest.mark.exhaustive),
        pytest.param([2, 1, 3, 2, 11], id="by_token"),
    ],
)
@pytest.mark.parametrize("name", ["residual_fresh", *others("residual_fresh")])
def test_documents_and_masked_tokens(name, first):
    """Documents at segments' starts and inside them, few enough for tiles or not."""
    graph, params = made(name)
    x = tokens(19, 2)
    ids = np.stack([np.repeat(np.arange(len(first)), first), np.repeat([1, 2], [8, 11])])
    mask = np.ones((2, 19), bool)
    mask[0, 12:15] = False
    mask[1, 9:] = False
    got, state = run(graph, params, np.where(mask[..., None], x, np.nan), None, ids, mask)
    more = tokens(19, 2, seed=1)
    went_on, _ = run(graph, params, more, state, ids[:, -1:].repeat(19, 1), None)
    for row in range(2):
        for id in np.unique(ids[row][mask[row]]):
            own = (ids[row] == id) & mask[row]
            own_x = x[row, own]
            if id == ids[row][mask[row]][-1]:
                own_x = np.concatenate([own_x, more[row]])
                close(went_on[row], expected(name, params, own_x)[-19:])
            close(got[row, own], expected(name, params, own_x)[: own.sum()])
    assert not got[~mask].any()


def test_one_segment_is_the_rule_itself():
    rule = layers.rule(MLP)
    x = tokens(11)
    graph, params = build("memory", rule, chunk=2)
    want, _ = run(graph, params, x)
    cached, own = build(MemoryCachingMixer(segment=12), rule, chunk=2)
    shared = nnx.to_pure_dict(own) | nnx.to_pure_dict(params)
    shared["fast"] |= {"query": nnx.to_pure_dict(own)["fast"]["query"]}
    nnx.replace_by_pure_dict(own, shared)
    close(run(cached, own, x)[0], want)


@pytest.mark.slow
def test_kernels_are_those_of_the_rule():
    """In jax's interpreter of a TPU's kernels, which compute in float32."""
    x, found = tokens(24).astype(np.float32), []
    mixer = MemoryCachingMixer(segment=8, start="fresh")
    for backend in ("xla", "pallas"):
        graph, params = build(mixer, layers.rule(MATRIX), chunk=8, backend=backend)
        params = jax.tree.map(lambda p: p.astype(np.float32), params)
        with interpreted():
            found.append(run(graph, params, x)[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_sparse_with_all_segments_is_gated():
    graph, params = made("gated")
    mixer = MemoryCachingMixer(segment=4, combine="sparse", top_k=5)
    sparse, _ = build(mixer, layers.rule(MLP), chunk=2)
    x = tokens(23)
    close(run(sparse, params, x)[0], run(graph, params, x)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparse_binary", *others("sparse_binary")])
def test_gradients_are_those_of_finite_differences(name):
    graph, params = made(name)
    layers.check_gradients(graph, params, tokens(11))


@pytest.mark.parametrize(
    ("options", "rule", "named"),
    [
        ({"segment": 6}, {}, "segment=6 must be a multiple of chunk=4"),
        ({"combine": "soup"}, {"algorithm": "newton", "memory": "matrix"}, "combine='soup'"),
        ({}, {"memory": "kv", "algorithm": "nonparametric"}, "keeps tokens"),
        ({"segmentation": "binary", "start": "fresh"}, {}, "segmentation='binary'"),
        ({"max_segments": 0}, {}, "max_segments=0"),
    ],
)
def test_what_is_refused(options, rule, named):
    parts = miras.Rule(**rule)
    with pytest.raises(miras.ConfigError, match=named):
        MixerConfig(mixer={"kind": "memory_caching", **options}, rule=parts, chunk=4).check("")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_the_contract_of_a_mixer(name):
    options, memory = CASES[name]
    mixer = MemoryCachingMixer(segment=4, **options)
    check_mixer(MixerConfig(mixer=mixer, rule=layers.rule(memory), chunk=2))
