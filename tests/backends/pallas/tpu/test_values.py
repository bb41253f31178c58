"""Kernels in jax's interpreter of them, where unwritten memory is NaN, against `reference`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter

from miras.backends.pallas.interpreter import interpreted
from miras.backends.pallas.tpu.plan import TpuLimits
from miras.backends.pallas.trace.jaxprs import equations
from miras.testing.expect import expect_close
from miras.testing.inputs import scan_with_loss
from tests import selection
from tests.backends.pallas.calls import (
    NAMES,
    agree,
    call,
    erasing,
    kernels,
    mimo,
    value_and_gradients,
)
from tests.rules import labels

SIZES = {"T": 19, "dk": 4}
SHORT = {"T": 11, "dk": 4}
CHUNK = 8


compare = functools.partial(agree, "tpu", chunk=CHUNK)


# Every member, order and way to call `scan`; `make exhaustive` runs the other presets.
SAMPLE = selection.covering({name: labels(name) for name in NAMES}, share=0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", selection.sampled(NAMES, SAMPLE))
@pytest.mark.sample(0.1)
def test_every_preset_equals_the_reference(name):
    """Three tiles of a chunk, two of them in one grid step, in which memories are recomputed."""
    compare(*call(name, **SIZES), TpuLimits(tokens=2 * CHUNK))


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", ["atlas", "atlas++"])
@pytest.mark.sample(0.0)
def test_token_by_token(name):
    """As the rules that form every token's weights are run where these are large."""
    compare(*call(name, **SHORT), TpuLimits(tile=1, tokens=CHUNK))


# One of each kind of step: a momentum, a link, a solve, an algorithm that acts on whole weights.
SOME = ("titans_lmm", "memora", "gated_deltanet", "lact")


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    "name", selection.sampled([*SOME, "preconditioned_kda"], ["gated_deltanet"])
)
def test_segments_masks_and_a_state(name):
    static, arrays = call(name, B=2, T=21, dk=4)
    first, second = (
        jax.tree.map(lambda x, at=at: x[:, at], arrays) for at in (slice(16), slice(16, None))
    )
    for part in (first, second):
        part["inputs"] = part["inputs"]._replace(W0=arrays["inputs"].W0)
    mask = np.random.default_rng(0).uniform(size=(2, 16)) < 0.8
    segments = jnp.asarray([[0] * 8 + [1] * 8, [0] * 16])
    labels = {"mask": jnp.asarray(mask), "segment_ids": segments}
    compare(static, first, **labels)
    _, state, _ = scan_with_loss(
        static["rule"], *first["inputs"], exact=static["exact"], chunk=CHUNK, **labels
    )
    compare(static, second, state=state)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    "name",
    [*SOME, "ttt_linear", pytest.param("preconditioned_kda", marks=pytest.mark.exhaustive)],
)
@pytest.mark.sample(0.3)
def test_tiles_smaller_than_a_chunk(name):
    compare(*call(name, **SIZES), TpuLimits(tile=CHUNK // 2, tokens=CHUNK // 2))


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("memory", ["matrix", pytest.param("mlp", marks=pytest.mark.exhaustive)])
def test_delta_gradient_descent(memory):
    """The errors of a tile solve a system: two tiles, forward and backward."""
    compare(*erasing(memory, B=1, T=2 * CHUNK, H=1, dk=4))


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_several_inputs_and_outputs_of_a_token():
    """Reads of their own number, and buffers of several keys: two tiles, forward and backward."""
    compare(*mimo(B=1, T=CHUNK + 3, H=1, dk=4, dv=3))


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    ("length", "labels", "in_pairs"),
    [
        pytest.param(4 * CHUNK, {}, True, marks=pytest.mark.exhaustive),
        (4 * CHUNK - 3, {}, True),
        (3 * CHUNK, {}, False),  # the last would be alone
        (2 * CHUNK, {"segment_ids": jnp.asarray([[0] * CHUNK + [1] * CHUNK])}, False),
    ],
    ids=["two pairs", "a pair with a short chunk", "three chunks", "segments"],
)
def test_two_chunks_at_once(length, labels, in_pairs):
    """Without gradients, where momentum is large: the answers and the state are as ever."""
    static, arrays = call("titans_lmm", T=length, dk=4)
    scan = functools.partial(scan_with_loss, static["rule"], chunk=CHUNK, exact=False, **labels)
    want = scan(*arrays["inputs"], backend="reference")
    with interpreted("tpu"), kernels(TpuLimits(paired=0, tokens=CHUNK)) as backend:
        traced = jax.jit(functools.partial(scan, backend=backend)).trace(*arrays["inputs"])
        got = traced.lower().compile()(*arrays["inputs"])
    expect_close(got, want, "two chunks at once are not one after the other")
    (grid,) = (
        eqn.params["grid_mapping"].grid
        for eqn in equations(traced.jaxpr.jaxpr)
        if eqn.primitive.name == "pallas_call"
    )
    chunks = -(-length // CHUNK)
    assert grid[1] == (chunks // 2 if in_pairs else chunks)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", SOME)
@pytest.mark.sample(0.0)
def test_no_races(name):
    static, arrays = call(name, **SIZES)
    with interpreted(detect_races=True):
        value_and_gradients(static, arrays, backend="pallas", chunk=CHUNK)
    assert interpreter.races is not None
    assert not interpreter.races.races_found


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere", "optimised")
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(jnp.float32, id="float32", marks=pytest.mark.exhaustive),
        pytest.param(jnp.bfloat16, id="bfloat16"),
    ],
)
@pytest.mark.parametrize("name", selection.sampled(SOME, ["gated_deltanet"]))
@pytest.mark.sample(0.0)
def test_rounding_is_that_of_the_xla_backend(name, dtype):
    """Against float64: errors at most four times those of XLA, or a few units in the last place."""
    static, arrays = call(name, **SIZES)
    narrow = lambda x, to: jnp.asarray(x, dtype).astype(to)  # noqa: E731
    inputs = jax.tree.map(lambda x: narrow(x, jnp.float32), arrays["inputs"])
    streams = {n: narrow(getattr(inputs, n), dtype) for n in "qkv"}
    arrays["inputs"] = inputs._replace(**streams)
    exact = jax.tree.map(lambda x: x.astype(jnp.float64), arrays)
    want = value_and_gradients(static, exact, backend="reference", chunk=CHUNK)
    xla = value_and_gradients(static, arrays, backend="xla", chunk=CHUNK)
    with interpreted():
        got = value_and_gradients(static, arrays, backend="pallas", chunk=CHUNK)
    assert got["y"].dtype == dtype
    assert got["memory"][0]["w1"].dtype == jnp.float32
    paths = jax.tree_util.tree_leaves_with_path(want)
    for (path, w), x, g in zip(paths, jax.tree.leaves(xla), jax.tree.leaves(got), strict=True):
        unit = jnp.finfo(x.dtype).eps * max(1.0, float(jnp.abs(w).max()))
        allowed = 4 * float(jnp.abs(x - w).max()) + 8 * unit
        error = float(jnp.abs(g - w).max())
        assert error <= allowed, (jax.tree_util.keystr(path), error, allowed)
