"""jax's splash attention in attention's place: equal to the softmax as written, and compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.engine import attention
from miras.kernels.ahead import compile_ahead
from miras.kernels.attention import fused
from miras.models import LanguageModel, mac

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


def both(monkeypatch, loss, *arguments):
    """Values and gradients of `loss(backend, ...)` as written, and by splash in the interpreter."""
    calls = []

    def interpreted(q, k, v, front, **options):
        calls.append((front, options["segment"]))
        return fused(q, k, v, front, **options, interpret=True)

    def found(backend):
        numbers = tuple(range(len(arguments)))
        gradient = jax.grad(functools.partial(loss, backend), argnums=numbers, has_aux=True)
        return gradient(*arguments)

    want = found("reference")
    monkeypatch.setattr(attention, "fused", interpreted)
    jax.clear_caches()  # of calls without it
    got = found("auto")
    jax.clear_caches()
    return want, got, calls


@pytest.mark.parametrize("persists", [False, True], ids=["alone", "persistent"])
@pytest.mark.parametrize("ids", [None, EDGE], ids=["whole", "documents"])
@pytest.mark.parametrize("window", [None, 32])
def test_it_is_the_softmax_as_written(window, ids, persists, monkeypatch):
    """Values and gradients, 2^-24 times the square root of the keys and some tens of roundings."""
    front = persistent() if persists else None

    def loss(backend, streams, front):
        y = run(window, backend, ids, *streams, front)
        return jnp.sum(jnp.sin(y)), y

    want, got, calls = both(monkeypatch, loss, streams(), front)
    assert calls
    assert (calls[0][0] is None, calls[0][1] is None) == (front is None, ids is None)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=16 * 16 * 2**-24), got, want)


@pytest.mark.parametrize("sign", [1, -1])
def test_persistent_tokens_that_outweigh_all_or_none(sign, monkeypatch):
    """Scores of 100, of which float32 knows 100 x 2^-24 times the root of their terms, 8."""
    q, k, v = streams()
    along = jnp.full(D, sign * 100 / D**0.5)  # a score of sign * 100 with queries of ones
    front = {**persistent(), "k": jnp.broadcast_to(along, (H, 5, D))}

    def loss(backend, streams, front):
        y = run(None, backend, EDGE, *streams, front)
        return jnp.sum(y), y

    want, got, _ = both(monkeypatch, loss, (0.01 * q + 1, 0.1 * k, v), front)

    def compare(got, want):
        size = np.max(np.abs(want))
        np.testing.assert_allclose(got, want, atol=max(size, 1) * 100 * 8 * 2**-24)

    jax.tree.map(compare, got, want)


@pytest.mark.parametrize("window", [None, 32])
def test_in_bfloat16_it_is_as_exact_as_xla(window, monkeypatch):
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
    _, got, _ = both(monkeypatch, loss, arrays, front)

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


@pytest.mark.parametrize("preset", ["transformer", "titans_mag", "titans_mal"])
def test_models_of_packed_documents_attend_in_the_kernel(preset, monkeypatch):
    config = miras.override(miras.preset(preset), "layers=1", "width=32", "heads=2", "vocab=16")
    model = LanguageModel(config, nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (B, T), 0, config.vocab)
    asked = []

    def interpreted(q, k, v, front, **options):
        y = fused(q, k, v, front, **options, interpret=True)
        asked.append((front is not None, options["segment"] is not None, y is not None))
        return y

    want, _ = model(tokens, segment_ids=jnp.asarray(EDGE))
    monkeypatch.setattr(attention, "fused", interpreted)
    jax.clear_caches()
    got, _ = model(tokens, segment_ids=jnp.asarray(EDGE))
    jax.clear_caches()
    assert set(asked) == {(preset != "transformer", True, True)}
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("persists", [0, 3])
def test_mac_attends_in_the_kernel(persists, monkeypatch):
    """To what it recalls and what it reads, [h || x], in whole segments of 128 tokens."""
    words = ("layers=1", "width=32", "heads=2", "vocab=16", f"attention.persistent={persists}")
    words += ("attention.segment=128", "attention.window=100")
    model = LanguageModel(miras.override(miras.preset("titans_mac"), *words), nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (B, T + 20), 0, 16)

    def loss(model):
        logits, _ = model(tokens)
        return jnp.sum(jnp.sin(logits)), logits

    asked = []

    def interpreted(q, k, v, front, **options):
        y = fused(q, k, v, front, **options, interpret=True)
        asked.append((q.shape[1], k.shape[1], y is not None))
        return y

    found = nnx.grad(loss, has_aux=True)
    want = found(model)
    monkeypatch.setattr(mac, "fused", interpreted)
    jax.clear_caches()
    got = found(model)
    jax.clear_caches()
    assert set(asked) == {(128, 256, True), (20, 40, False)}

    def compare(got, want):
        np.testing.assert_allclose(got, want, atol=16 * 16 * 2**-24 * max(1, np.max(np.abs(want))))

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
    got = run(window, "xla", None, *arrays)
    jax.clear_caches()
    (options,) = asked
    assert (options["by"], options["is_causal"]) == ("cudnn", True)
    assert options["local_window_size"] == (None if window is None else (31, 0))
    np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), atol=2**-6)


WHOLE = {"front": None, "segment": None}


@pytest.mark.parametrize(
    ("capability", "dtype", "width", "given"),
    [
        (None, jnp.bfloat16, 64, {}),
        (7.5, jnp.bfloat16, 64, {}),
        (9.0, jnp.float32, 64, {}),
        (9.0, jnp.bfloat16, 60, {}),
        (8.0, jnp.bfloat16, 256, {}),
        (10.0, jnp.bfloat16, 256, {}),
        (9.0, jnp.bfloat16, 64, {"front": ()}),
        (9.0, jnp.bfloat16, 64, {"segment": EDGE}),
    ],
)
def test_what_cudnn_does_not_take(capability, dtype, width, given, monkeypatch):
    monkeypatch.setattr("miras.kernels.attention.platform", lambda: "gpu")
    monkeypatch.setattr("miras.kernels.attention.capability", lambda: capability)
    q = jnp.zeros((1, 64, 1, width), dtype)
    assert fused(q, q, q, **{**WHOLE, **given}, window=None, scale=1.0) is None


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 32])
def test_cudnn_is_the_softmax_as_written(window):
    """In bfloat16: 2^-8 of values of size 4, some roundings; gradients likewise."""

    def loss(backend, arrays):
        y = run(window, backend, None, *arrays).astype(jnp.float32)
        return jnp.sum(jnp.sin(y)), y

    def found(backend):
        gradient = jax.grad(functools.partial(loss, backend), has_aux=True)
        return gradient(streams(jnp.bfloat16))

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
