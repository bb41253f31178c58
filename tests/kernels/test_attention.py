"""Fused kernels in attention's place: equal to the softmax as written, and compiled."""

import contextlib
import functools
import logging
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.engine import attention
from miras.engine.softmax import attend, in_front
from miras.kernels.ahead import compile_ahead
from miras.kernels.attention import fused
from miras.kernels.interpreter import interpreted
from miras.kernels.log import say
from miras.models import LanguageModel, mac
from miras.train.step import total_loss
from tests.kernels.test_gpu_lowers import H200

B, T, H, D = 2, 256, 2, 64
EDGE = np.where(np.arange(T) < 100, 1, 2)[None].repeat(B, 0)


def streams(dtype=np.float32):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(B, T, H, D)), dtype) for _ in range(3))


def rule(window, persistent=0):
    memory = miras.memory.KV(window=window, persistent=persistent)
    return miras.Rule(memory=memory, algorithm="nonparametric")


def run(window, backend, ids, q, k, v, front=None):
    kv, W0 = rule(window, 0 if front is None else front["k"].shape[1]), front or {}
    y, _ = miras.scan(kv, W0, q, k, v, segment_ids=ids, backend=backend)
    return y


def persistent(dtype=np.float32):
    """Keys and values of 5 tokens, as large as the others."""
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=(H, 5, D)), dtype) for name in ("k", "v")}


@contextlib.contextmanager
def in_a_kernel(monkeypatch, device, place=attention):
    """Attend in a device's kernel, in the interpreter; gives what it is called with."""
    calls = []

    def recorded(q, k, v, front, **options):
        y = fused(q, k, v, front, **options, interpret=device == "tpu")
        calls.append((q, k, front, options["segment"], y))
        return y

    with contextlib.ExitStack() as stack:
        if device == "gpu":
            stack.enter_context(interpreted("gpu"))
        stack.enter_context(monkeypatch.context()).setattr(place, "fused", recorded)
        jax.clear_caches()  # of calls without it
        yield calls
        jax.clear_caches()


def both(monkeypatch, device, loss, *arguments):
    """Values and gradients of `loss(backend, ...)` as written, and by a kernel."""

    def found(backend):
        numbers = tuple(range(len(arguments)))
        gradient = jax.grad(functools.partial(loss, backend), argnums=numbers, has_aux=True)
        return gradient(*arguments)

    want = found("reference")
    with in_a_kernel(monkeypatch, device) as calls:
        got = found("auto")
    return want, got, calls


DEVICES = pytest.mark.parametrize("device", ["tpu", "gpu"])


@DEVICES
@pytest.mark.parametrize("persists", [False, True], ids=["alone", "persistent"])
@pytest.mark.parametrize("ids", [None, EDGE], ids=["whole", "documents"])
@pytest.mark.parametrize("window", [None, 32])
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


@DEVICES
@pytest.mark.parametrize("window", [None, 32])
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


@DEVICES
@pytest.mark.parametrize("preset", ["transformer", "titans_mag", "titans_mal"])
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


@pytest.mark.parametrize("persists", [0, 3])
def test_mac_attends_in_the_kernel(persists, monkeypatch):
    """To what it recalls and what it reads, [h || x]: on TPUs in whole segments of 128 tokens."""
    words = ("layers=1", "width=32", "heads=2", "vocab=16", f"attention.persistent={persists}")
    words += ("attention.segment=128", "attention.window=100")
    model = LanguageModel(miras.override(miras.preset("titans_mac"), *words), nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (B, T + 20), 0, 16)

    def loss(model):
        logits, _ = model(tokens)
        return jnp.sum(jnp.sin(logits)), logits

    found = nnx.grad(loss, has_aux=True)
    want = found(model)

    def compare(got, want):
        np.testing.assert_allclose(got, want, atol=16 * 16 * 2**-24 * max(1, np.max(np.abs(want))))

    for device in ("tpu", "gpu"):
        with in_a_kernel(monkeypatch, device, mac) as calls:
            got = found(model)
        asked = {(q.shape[1], k.shape[1], y is not None) for q, k, *_, y in calls}
        assert asked == {(128, 256, True), (20, 40, device == "gpu")}
        jax.tree.map(compare, got, want)


def test_what_no_kernel_takes_is_left_to_the_engine(monkeypatch):
    q, k, v = streams()
    options = dict(window=None, segment=None, scale=1.0)
    assert fused(q, k, v, **options) is None  # no such device
    cut = (x[:, :100] for x in (q, k, v))
    assert fused(*cut, **options, interpret=True) is None  # no whole blocks

    def unwanted(*_, **__):
        raise AssertionError("a kernel that knows no such thing was asked")

    monkeypatch.setattr(attention, "fused", unwanted)
    short = [x[:, :10] for x in (q, k, v)]
    _, state = miras.scan(rule(4), {}, *short, backend="reference")
    miras.scan(rule(4), {}, *short, state=state)
    miras.scan(rule(4), {}, *short, mask=jnp.ones((B, 10), bool))
    jax.clear_caches()


@DEVICES
@pytest.mark.parametrize("backend", ["xla", "reference"])
def test_what_asks_for_none_gets_no_kernel(backend, device, monkeypatch):
    short = [x[:, :128] for x in streams()]
    with in_a_kernel(monkeypatch, device) as calls:
        run(None, backend, EDGE[:, :128], *short)
    assert not calls


@pytest.mark.parametrize("window", [None, 32])
def test_on_a_gpu_cudnn_is_asked(window, monkeypatch):
    asked, known = [], jax.nn.dot_product_attention

    def attention_of(q, k, v, *, implementation, **options):
        asked.append({**options, "by": implementation})
        return known(q, k, v, **options)

    arrays = streams(jnp.bfloat16)
    want = run(window, "reference", None, *arrays)
    monkeypatch.setattr(jax.nn, "dot_product_attention", attention_of)
    monkeypatch.setattr("miras.kernels.attention.platform", lambda: "gpu")
    monkeypatch.setattr("miras.kernels.attention.capability", lambda: 8.0)
    jax.clear_caches()
    got = run(window, "auto", None, *arrays)
    jax.clear_caches()
    (options,) = asked
    assert (options["by"], options["is_causal"]) == ("cudnn", True)
    assert options["local_window_size"] == (None if window is None else (31, 0))
    np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), atol=2**-6)


WHOLE = {"front": None, "segment": None}
GPUS = {"capability": 9.0, "dtype": jnp.bfloat16, "width": 64, "given": {}}


def told(monkeypatch, caplog, capability, dtype, width, given):
    """What the log says of a call on a GPU, and whether a Triton kernel was asked."""
    monkeypatch.setattr("miras.kernels.attention.platform", lambda: "gpu")
    monkeypatch.setattr("miras.kernels.attention.capability", lambda: capability)
    monkeypatch.setattr("miras.kernels.flash.flash", lambda q, *_, **__: q)
    caplog.set_level(logging.INFO, "miras")
    say.cache_clear()
    q = jnp.zeros((1, 64, 1, width), dtype)
    options = {**WHOLE, **given}
    taken = [fused(q, q, q, **options, window=None, scale=1.0) is not None for _ in range(2)]
    (line,) = caplog.messages  # once
    return line, taken[0]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"capability": None}, "GPUs of compute capability 8 only"),
        ({"dtype": jnp.float32}, "no float32"),
        ({"width": 60}, "heads of 8, 16 .. 256 channels only"),
        ({"width": 256, "capability": 8.0}, "heads of 8, 16 .. 128 channels only"),
        ({"width": 256, "capability": 10.0}, "heads of 8, 16 .. 128 channels only"),
        ({"given": {"front": ()}}, "no persistent tokens"),
        ({"given": {"segment": EDGE}}, "no documents"),
    ],
)
def test_what_cudnn_does_not_take_triton_does(changed, why, monkeypatch, caplog):
    line, taken = told(monkeypatch, caplog, **{**GPUS, **changed})
    assert taken
    assert line == f"attention in a Triton kernel: cuDNN takes {why}"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"capability": 7.5}, "Triton needs a GPU of compute capability 8.0, and this one has 7.5"),
        ({"dtype": jnp.float16}, "the Triton kernel takes no float16"),
        ({"width": 264}, "the Triton kernel takes heads of up to 256 channels, not 264"),
    ],
)
def test_what_no_kernel_of_a_gpu_takes_is_said(changed, why, monkeypatch, caplog):
    line, taken = told(monkeypatch, caplog, **{**GPUS, **changed})
    assert not taken
    assert line.startswith("attention by XLA: cuDNN takes ")
    assert line.endswith(why)


def test_where_jax_lacks_triton_it_is_said(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "miras.kernels.flash", None)
    monkeypatch.delattr("miras.kernels.flash", raising=False)
    monkeypatch.setattr("miras.kernels.attention.platform", lambda: "gpu")
    caplog.set_level(logging.INFO, "miras")
    say.cache_clear()
    assert fused(*streams(), **{**WHOLE, "segment": EDGE}, window=None, scale=1.0) is None
    assert "lacks what Triton kernels are made of" in caplog.text


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("length", "dk", "dv", "times", "window"),
    [(150, 24, 40, 1, 70), (70, 16, 8, 2, None), (20, 40, 40, 2, 7), (1, 8, 8, 1, 4)],
)
def test_triton_takes_any_number_of_tokens_and_channels(length, dk, dv, times, window, dtype):
    """Documents of some tokens or some blocks, several keys a token, and under `vmap`.

    A bfloat16 has 2^-8 of the answers' and gradients' size, of which some roundings are made.
    """
    rng = np.random.default_rng(0)
    shapes = ((length, H, dk), (times * length, H, dk), (times * length, H, dv))
    arrays = [jnp.asarray(rng.normal(size=(2, B, *shape)), dtype) for shape in shapes]
    front = [jnp.asarray(rng.normal(size=(2, H, 3, d)), dtype) for d in (dk, dv)]
    ids = jnp.cumsum(rng.uniform(size=(2, B, length)) < 0.05, axis=2)

    def as_written(q, k, v, front, ids):
        at = jnp.arange(length)
        sees = (at <= at[:, None]) & (at > at[:, None] - (window or length))
        sees = jnp.tile(sees & (ids[:, :, None] == ids[:, None, :]), (1, 1, times))
        k, v, sees = in_front(k, v, sees, *front)
        return attend(q, k, v, sees, 0.2, plain=True)

    def in_triton(q, k, v, front, ids):
        y = fused(q, k, v, front, window=window, segment=ids, scale=0.2)
        assert y.dtype == dtype
        return y

    def found(attend, dtype):
        def loss(*given):
            y = jax.vmap(attend)(*given, ids).astype(np.float32)
            return jnp.sum(jnp.sin(y)), y

        given = jax.tree.map(lambda x: x.astype(dtype), (*arrays, front))
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(*given)

    def compare(got, want):
        size = max(1, np.max(np.abs(want)))
        eps = 16 * 16 * 2**-24 if dtype == np.float32 else 4 * 2**-8
        np.testing.assert_allclose(np.asarray(got, np.float32), want, atol=size * eps)

    with interpreted("gpu"):
        got = found(in_triton, dtype)
    jax.tree.map(compare, got, found(as_written, np.float32))


def test_triton_reads_no_block_that_is_not_seen():
    """NaN in documents and outside of windows gets nowhere, forward and backward."""
    q, k, v = streams()
    ids = jnp.asarray(np.arange(T) >= 128, jnp.int32)[None].repeat(B, 0)

    def loss(end, segment, q, k, v):
        y = fused(q, k, v, window=64 if segment is None else None, segment=segment, scale=1.0)
        return jnp.sum(jnp.sin(y[:, end:]))

    for first, end, segment in ((128, 128, ids), (64, 128, None)):
        unseen = (np.arange(T) < first)[:, None, None]
        k_nan, v_nan = (jnp.where(unseen, jnp.nan, x) for x in (k, v))
        with interpreted("gpu"):
            found = jax.grad(functools.partial(loss, end, segment), argnums=(0, 1, 2))
            got, want = found(q, k_nan, v_nan), found(q, k, v)
        for x, y in zip(got, want, strict=True):
            np.testing.assert_array_equal(x[:, end:], y[:, end:])
            assert np.all(np.isfinite(y))


def test_triton_inside_shard_map():
    """Lowered: jax's interpreter cannot tell what differs from device to device."""
    rows, alike = jax.sharding.PartitionSpec("gpu"), jax.sharding.PartitionSpec()

    def total(q, k, v, front, ids):
        def attend(q, k, v, front, ids):
            front = front["k"], front["v"]
            return fused(q, k, v, front, window=32, segment=ids, scale=1.0)

        specs = (rows, rows, rows, alike, rows)
        return jnp.sum(jax.shard_map(attend, in_specs=specs, out_specs=rows)(q, k, v, front, ids))

    shapes = jax.tree.map(jax.typeof, (*streams(), persistent(), jnp.asarray(EDGE)))
    with jax.sharding.use_abstract_mesh(H200):
        gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3))).trace(*shapes)
        assert "miras_attention_backward" in gradient.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("preset", ["transformer", "swa", "titans_mag", "titans_mal", "titans_mac"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_models_training_attends_in_triton_kernels(preset, dtype):
    """Of packed documents, forward and backward, with nothing of tokens x tokens."""
    words = ("layers=2", "width=96", "heads=2", "vocab=16", f"dtype={dtype}")
    config = miras.override(miras.preset(preset), *words)
    graph, params = nnx.split(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0))), nnx.Param)
    shape, length = jax.ShapeDtypeStruct, 448
    names = {"inputs": "int32", "segment_ids": "int32", "targets": "int32"}
    names |= {"mask": "bool", "target_bytes": "float32"}
    batch = {name: shape((B, length), kind) for name, kind in names.items()}
    with jax.sharding.use_abstract_mesh(H200):
        gradient = jax.jit(jax.grad(functools.partial(total_loss, graph), has_aux=True))
        text = gradient.trace(params, batch).lower(lowering_platforms=("cuda",)).as_text()
    for way in ("forward", "backward"):
        assert f"miras_attention_{way}" in text
    assert f"{length}x{length}" not in text


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
    words = ("layers=1", "width=128", "heads=2", "vocab=16", "attention.segment=128", "remat=false")
    config = miras.override(miras.preset("titans_mac"), *words)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0))))

    def total(params, tokens):
        return jnp.sum(nnx.merge(graph, params)(tokens)[0])

    tokens = jax.ShapeDtypeStruct((B, T), "int32")
    text = compile_ahead(jax.grad(total), nnx.to_pure_dict(shapes), tokens).as_text()
    assert text.count("splash") > 0
