"""Flash attention in Triton: what it takes beyond other kernels, and what it leaves unread."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.attention.dispatch import fused
from miras.attention.softmax import attend, in_front
from miras.backends.pallas.interpreter import interpreted
from miras.models import LanguageModel
from miras.train.step import total_loss
from tests import selection
from tests.attention.attended import EDGE, B, H, T, persistent, streams
from tests.backends.pallas.gpu.test_lowers import H200


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("length", "dk", "dv", "times", "window"),
    [(150, 24, 40, 1, 70), (70, 16, 8, 2, None), (20, 40, 40, 2, 7), (1, 8, 8, 1, 4)],
)
@pytest.mark.sample(0.2)
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
        return attend(q, k, v, sees, 0.2, as_written=True)

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


MODELS = {
    f"{dtype}-{preset}": (preset, dtype)
    for dtype in ("float32", "bfloat16")
    for preset in ("transformer", "swa", "titans_mag", "titans_mal", "titans_mac")
}


@pytest.mark.slow
@pytest.mark.parametrize("case", selection.sampled(MODELS, selection.covering(MODELS, share=0.2)))
def test_a_models_training_attends_in_triton_kernels(case):
    """Of packed documents, forward and backward, with nothing of tokens x tokens."""
    preset, dtype = MODELS[case]
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
