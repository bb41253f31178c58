"""jax's splash attention in attention's place: equal to the softmax as written, and compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.engine import attention
from miras.kernels.ahead import compile_ahead
from miras.kernels.attention import fused

B, T, H, D = 2, 256, 2, 64
EDGE = np.where(np.arange(T) < 100, 1, 2)[None].repeat(B, 0)


def streams(dtype=np.float32):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(B, T, H, D)), dtype) for _ in range(3))


def rule(window):
    memory = miras.memory.KV(window=window)
    return miras.Rule(memory=memory, algorithm="nonparametric")


def run(window, backend, ids, q, k, v):
    y, _ = miras.scan(rule(window), {}, q, k, v, segment_ids=ids, backend=backend)
    return y


@pytest.mark.parametrize("ids", [None, EDGE], ids=["whole", "documents"])
@pytest.mark.parametrize("window", [None, 32])
def test_it_is_the_softmax_as_written(window, ids, monkeypatch):
    """Values and gradients, 2^-24 times the square root of the keys and some tens of roundings."""
    calls = []

    def interpreted(q, k, v, window, segment, scale):
        calls.append(segment)
        return fused(q, k, v, window=window, segment=segment, scale=scale, interpret=True)

    def total(backend, q, k, v):
        y = run(window, backend, ids, q, k, v)
        return jnp.sum(jnp.sin(y)), y

    def found(backend):
        gradient = jax.grad(functools.partial(total, backend), argnums=(0, 1, 2), has_aux=True)
        return gradient(*streams())

    want = found("reference")
    monkeypatch.setattr(attention, "_fused", interpreted)
    jax.clear_caches()  # of calls without it
    got = found("auto")
    assert calls
    assert (calls[0] is None) == (ids is None)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=16 * 16 * 2**-24), got, want)
    jax.clear_caches()


def test_what_no_kernel_takes_is_left_to_the_engine(monkeypatch):
    q, k, v = streams()
    options = dict(window=None, segment=None, scale=1.0)
    assert fused(q, k, v, **options) is None  # no such device
    cut = (x[:, :100] for x in (q, k, v))
    assert fused(*cut, **options, interpret=True) is None  # no whole blocks

    def unwanted(*_):
        raise AssertionError("a kernel that knows no such thing was asked")

    monkeypatch.setattr(attention, "_fused", unwanted)
    short = [x[:, :10] for x in (q, k, v)]
    _, state = miras.scan(rule(4), {}, *short, backend="reference")
    miras.scan(rule(4), {}, *short, state=state)
    miras.scan(rule(4), {}, *short, mask=jnp.ones((B, 10), bool))
    kept = miras.Rule(memory=miras.memory.KV(persistent=2), algorithm="nonparametric")
    miras.scan(kept, kept.init(jax.random.key(0), D, D, H), *short)
    jax.clear_caches()


@pytest.mark.tpu_aot
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window", [None, 64])
def test_attention_compiles_for_a_tpu_as_a_kernel(window, dtype):
    shape = jax.ShapeDtypeStruct((B, 512, H, D), dtype)

    def total(q, k, v):
        return jnp.sum(run(window, "auto", None, q, k, v).astype(jnp.float32))

    compiled = compile_ahead(jax.grad(total, argnums=(0, 1, 2)), shape, shape, shape)
    assert compiled.as_text().count("splash") > 0
