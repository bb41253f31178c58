"""Fused kernels in attention's place: equal to the softmax as written, and compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.attention.dispatch import fused
from miras.backends.pallas.ahead_of_time import compile_ahead
from miras.mixers import mac
from miras.models import LanguageModel
from tests.attention.attended import (
    DEVICES,
    EDGE,
    B,
    D,
    H,
    T,
    both,
    by_name,
    in_a_kernel,
    neighbours,
    persistent,
    run,
    size_of_terms,
    streams,
)

# A memory beside the attention that is soon traced and compiled.
SHORT = ("rule.memory=matrix", "algorithm=gd", "remat=none")
LINEAR = ("bias=dot", "retention=none")  # linear attention


@DEVICES
@pytest.mark.parametrize("persists", [False, True], ids=["alone", "persistent"])
@pytest.mark.parametrize("ids", [None, EDGE], ids=["whole", "documents"])
@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.sample(0.2)
def test_it_is_the_softmax_as_written(window, ids, persists, device, monkeypatch):
    """Values and gradients, 2^-24 times the square root of the keys and some tens of roundings."""
    front = persistent() if persists else None

    def loss(backend, streams, front):
        y = run(window, backend, ids, *streams, front)
        return jnp.sum(jnp.sin(y)), y

    want, got, calls = both(monkeypatch, device, loss, streams(), front)
    ((_, _, *given, y),) = calls
    assert [x is None for x in (*given, y)] == [front is None, ids is None, False]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=16 * 16 * 2**-24), got, want)


@DEVICES
@pytest.mark.parametrize("sign", [1, -1])
def test_persistent_tokens_that_outweigh_all_or_none(sign, device, monkeypatch):
    """Scores of 100, of which float32 knows 100 x 2^-24 times the root of their terms, 8."""
    q, k, v = streams()
    along = jnp.full(D, sign * 100 / D**0.5)  # a score of sign * 100 with queries of ones
    front = {**persistent(), "k": jnp.broadcast_to(along, (H, 5, D))}

    def loss(backend, streams, front):
        y = run(None, backend, EDGE, *streams, front)
        return jnp.sum(y), y

    want, got, _ = both(monkeypatch, device, loss, (0.01 * q + 1, 0.1 * k, v), front)

    def compare(got, want):
        size = np.max(np.abs(want))
        np.testing.assert_allclose(got, want, atol=max(size, 1) * 100 * 8 * 2**-24)

    jax.tree.map(compare, got, want)


@pytest.mark.slow
@DEVICES
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.sample(0.0)
def test_in_bfloat16_it_is_as_exact_as_xla(window, device, monkeypatch):
    """Errors, by their root mean square, at most thrice those of XLA's form, of each array.

    Persistent tokens have but a thousandth of the weight: 1 - m is to be known as well as m.
    """

    def loss(backend, arrays, front):
        y = run(window, backend, EDGE, *arrays, front).astype(jnp.float32)
        return jnp.sum(jnp.sin(y)), y

    def widened(tree):
        return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

    q, k, v = streams(jnp.bfloat16)
    arrays, front = (q + 1, k, v), persistent(jnp.bfloat16)
    front["k"] -= 3 * D**-0.5  # scores lower by 3
    gradient = functools.partial(jax.grad, argnums=(1, 2), has_aux=True)
    want = gradient(loss)("reference", widened(arrays), widened(front))
    xla = gradient(loss)("xla", arrays, front)
    _, got, _ = both(monkeypatch, device, loss, arrays, front)

    def off(x, want):
        return np.sqrt(np.mean((np.asarray(x, np.float32) - want) ** 2))

    errors = zip(*(jax.tree.leaves(jax.tree.map(off, x, want)) for x in (got, xla)), strict=True)
    assert all(mine <= 3 * theirs for mine, theirs in errors)


def test_inside_shard_map_it_is_left_to_the_engine():
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    def attend(q, k, v):
        assert fused(q, k, v, window=None, segment=None, scale=1.0, interpret=True) is None
        return q

    spec = jax.sharding.PartitionSpec("x")
    jax.jit(jax.shard_map(attend, mesh=mesh, in_specs=spec, out_specs=spec))(*streams())


@pytest.mark.slow
@DEVICES
@pytest.mark.parametrize(
    "preset",
    ["transformer", "titans_mag", pytest.param("titans_mal", marks=pytest.mark.exhaustive)],
)
@pytest.mark.sample(0.0)
def test_models_of_packed_documents_attend_in_the_kernel(preset, device, monkeypatch):
    config = miras.override(miras.preset(preset), "layers=1", "width=32", "heads=2", "vocab=16")
    model = LanguageModel(config, nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (B, T), 0, config.vocab)
    want, _ = model(tokens, segment_ids=jnp.asarray(EDGE))
    with in_a_kernel(monkeypatch, device) as calls:
        got, _ = model(tokens, segment_ids=jnp.asarray(EDGE))
    asked = {tuple(x is None for x in given) for _, _, *given in calls}
    assert asked == {(preset == "transformer", False, False)}
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "memory",
    [
        pytest.param((), id="delta"),
        pytest.param(LINEAR, id="linear", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize(
    ("persists", "device"),
    [
        (3, "tpu"),
        *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in [(0, "tpu"), (0, "gpu")]),
        pytest.param(3, "gpu", marks=pytest.mark.exhaustive),  # test_flash has it in training
    ],
)
def test_mac_attends_in_the_kernel(memory, persists, device, monkeypatch):
    """To what it recalls and what it reads, [h || x]: on TPUs in whole segments of 128 tokens.

    The bound is that of attention's values, times the size of what a gradient sums. XLA's own form
    with each parameter moved to a neighbouring float32 must be within it, or it is too small.
    """
    words = ("layers=1", "width=16", "heads=1", "vocab=16", f"attention.persistent={persists}")
    words += ("attention.segment=128", "attention.window=100", *SHORT, *memory)
    model = LanguageModel(miras.override(miras.preset("titans_mac"), *words), nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (1, T + 20), 0, 16)
    graph, params = nnx.split(model)

    def loss(params):
        logits, _ = nnx.merge(graph, params)(tokens)
        return jnp.sum(jnp.sin(logits)), logits

    def found(*cases):
        call = jax.jit(jax.grad(loss, has_aux=True))  # made anew: what attends is traced
        return [by_name(call(case)) for case in cases]

    want, beside = found(params, neighbours(params))
    sizes = {name: size_of_terms(want, name) for name in want}

    def compare(got):
        for name, size in sizes.items():
            atol = 16 * 16 * 2**-24 * max(1, size)
            np.testing.assert_allclose(got[name], want[name], atol=atol, err_msg=name)

    compare(beside)
    with in_a_kernel(monkeypatch, device, mac) as calls:
        (got,) = found(params)
    asked = {(q.shape[1], k.shape[1], y is not None) for q, k, *_, y in calls}
    assert asked == {(128, 256, True), (20, 40, device == "gpu")}
    compare(got)


@pytest.mark.gpu
@pytest.mark.parametrize("persists", [False, True], ids=["alone", "persistent"])
@pytest.mark.parametrize("ids", [None, EDGE], ids=["whole", "documents"])
@pytest.mark.parametrize("window", [None, 32])
def test_on_a_gpu_it_is_the_softmax_as_written(window, ids, persists):
    """In bfloat16: 2^-8 of values of size 4, some roundings; gradients likewise."""
    front = persistent(jnp.bfloat16) if persists else None

    def loss(backend, arrays, front):
        y = run(window, backend, ids, *arrays, front).astype(jnp.float32)
        return jnp.sum(jnp.sin(y)), y

    def found(backend):
        gradient = jax.grad(functools.partial(loss, backend), argnums=(0, 1), has_aux=True)
        return gradient(streams(jnp.bfloat16), front)

    compare = functools.partial(np.testing.assert_allclose, atol=2**-4, rtol=2**-5)
    widen = functools.partial(jax.tree.map, lambda x: np.asarray(x, np.float32))
    jax.tree.map(compare, widen(found("auto")), widen(found("reference")))


@pytest.mark.tpu_aot
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("documents", [False, True], ids=["whole", "documents"])
@pytest.mark.parametrize("front", [False, True], ids=["alone", "persistent"])
@pytest.mark.parametrize(("window", "dtype"), [(None, "float32"), (64, "bfloat16")])
@pytest.mark.sample(0.0)
def test_attention_compiles_for_a_tpu_as_a_kernel(window, dtype, front, documents):
    shape = jax.ShapeDtypeStruct((B, 512, H, D), dtype)
    ids = jax.ShapeDtypeStruct((B, 512), "int32") if documents else None

    def total(q, k, v, ids):
        kept = persistent(dtype) if front else None
        return jnp.sum(run(window, "auto", ids, q, k, v, kept).astype(jnp.float32))

    compiled = compile_ahead(jax.grad(total, argnums=(0, 1, 2)), shape, shape, shape, ids)
    assert compiled.as_text().count("splash") > 0


@pytest.mark.tpu_aot
@pytest.mark.usefixtures("libtpu")
def test_macs_attention_compiles_inside_its_scan():
    words = ("layers=1", "width=128", "heads=2", "vocab=16", "attention.segment=128")
    config = miras.override(miras.preset("titans_mac"), *words, *SHORT)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0))))

    def total(params, tokens):
        return jnp.sum(nnx.merge(graph, params)(tokens)[0])

    tokens = jax.ShapeDtypeStruct((B, T), "int32")
    text = compile_ahead(jax.grad(total), nnx.to_pure_dict(shapes), tokens).as_text()
    assert text.count("splash") > 0
