"""Which kernel attends, if any, and what the log says of it."""

import logging
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.attention import cache as attention
from miras.attention.dispatch import fused
from miras.runtime.log import log_once
from tests.attention.attended import DEVICES, EDGE, B, in_a_kernel, rule, run, streams


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
    monkeypatch.setattr("miras.attention.dispatch.platform", lambda: "gpu")
    monkeypatch.setattr("miras.attention.dispatch.capability", lambda: 8.0)
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
    monkeypatch.setattr("miras.attention.dispatch.platform", lambda: "gpu")
    monkeypatch.setattr("miras.attention.dispatch.capability", lambda: capability)
    monkeypatch.setattr("miras.attention.flash.flash", lambda q, *_, **__: q)
    caplog.set_level(logging.INFO, "miras")
    log_once.cache_clear()
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
    monkeypatch.setitem(sys.modules, "miras.attention.flash", None)
    monkeypatch.delattr("miras.attention.flash", raising=False)
    monkeypatch.setattr("miras.attention.dispatch.platform", lambda: "gpu")
    caplog.set_level(logging.INFO, "miras")
    log_once.cache_clear()
    assert fused(*streams(), **{**WHOLE, "segment": EDGE}, window=None, scale=1.0) is None
    assert "lacks what Triton kernels are made of" in caplog.text
