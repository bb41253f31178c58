"""The chunked loss: the value and the gradient of the whole, on one device and on meshes."""

import functools
import json
import subprocess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.train.loss import LossOptions, cross_entropy
from miras.train.predictions import predictions
from miras.train.token_chunks import chunks_of
from tests.devices import environment
from tests.tolerances import tolerance

B, T, WIDTH, VOCAB = 4, 12, 6, 16
Z = 1e-2


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    x, head = rng.normal(size=(B, T, WIDTH)), rng.normal(size=(VOCAB, WIDTH))
    return x, head, rng.integers(0, VOCAB, (B, T)), rng.random((B, T)) < 0.7


def oracle(x, head, targets, mask, z_loss):
    """Objective, nats, and the objective's gradients, token by token in NumPy."""
    objective, nats, dx, dhead = 0.0, 0.0, np.zeros_like(x), np.zeros_like(head)
    for b, t in np.argwhere(mask):
        logits = head @ x[b, t]
        top = logits.max()
        log_z = top + np.log(np.exp(logits - top).sum())
        nats += log_z - logits[targets[b, t]]
        objective += log_z - logits[targets[b, t]] + z_loss * log_z**2
        d = (1 + 2 * z_loss * log_z) * np.exp(logits - log_z)
        d[targets[b, t]] -= 1
        dx[b, t] = d @ head
        dhead += np.outer(d, x[b, t])
    return objective, nats, dx, dhead


def found(x, head, targets, mask, options, dtype):
    def loss(x, head):
        return cross_entropy(x, head, jnp.asarray(targets), jnp.asarray(mask), options)

    x, head = jnp.asarray(x, dtype), jnp.asarray(head, dtype)
    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (objective, nats), (dx, dhead) = both(x, head)
    alone = jax.jit(loss)(x, head)  # without a gradient it is another computation
    np.testing.assert_allclose(alone, (objective, nats), rtol=tolerance(x.dtype, B * T, 4))
    return objective, nats, dx, dhead


@pytest.mark.parametrize("chunk", [None, 7, 1])
def test_chunks_have_the_value_and_the_gradient_of_the_whole(chunk):
    """In float64 for a loss with a z-loss; 7 does not divide the 48 tokens."""
    given = inputs()
    want = oracle(*given, Z)
    with jax.enable_x64(True):
        got = found(*given, LossOptions(chunk, Z), jnp.float64)
    for a, b in zip(got, want, strict=True):
        scale = np.max(np.abs(b))
        np.testing.assert_allclose(a, b, atol=tolerance(np.float64, B * T * VOCAB, 4) * scale)


def test_float32_is_within_the_rounding_of_its_sums():
    given = inputs(1)
    want = oracle(*given, 0.0)
    got = found(*given, LossOptions(5), jnp.float32)
    assert float(got[0]) == float(got[1])
    for a, b in zip(got, want, strict=True):
        scale = np.max(np.abs(b))
        np.testing.assert_allclose(a, b, atol=tolerance(np.float32, B * T * VOCAB, 4) * scale)


def test_a_masked_token_reaches_nothing():
    x, head, targets, mask = inputs(2)
    spoilt = np.where(mask[..., None], x, 9.0)
    want = found(x, head, targets, mask, LossOptions(5, Z), jnp.float32)
    got = found(spoilt, head, targets, mask, LossOptions(5, Z), jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_logits_exist_for_one_chunk_only():
    x = jax.ShapeDtypeStruct((2, 512, 8), jnp.float32)
    head = jax.ShapeDtypeStruct((1000, 8), jnp.float32)
    targets, mask = (jax.ShapeDtypeStruct((2, 512), d) for d in (jnp.int32, jnp.bool))

    def temporary(chunk):
        gradient = jax.grad(cross_entropy, argnums=(0, 1), has_aux=True)
        step = jax.jit(lambda *args: gradient(*args, LossOptions(chunk)))  # pyright: ignore
        found: Any = step.lower(x, head, targets, mask).compile().memory_analysis()
        return found.temp_size_in_bytes

    logits = 2 * 512 * 1000 * 4
    assert temporary(2 * 512) > logits
    assert temporary(64) < logits / 4


def test_forward_mode_is_an_error():
    x, head, targets, mask = map(jnp.asarray, inputs())
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: cross_entropy(x, head, targets, mask), (x,), (x,))


def test_small_losses_are_not_cut():
    assert chunks_of(32 * 1024, 257, None) == 1
    assert chunks_of(32 * 1024, 32000, None) == 32
    assert chunks_of(32 * 1024, 256000, None) == 32
    assert chunks_of(100, 257, 30) == 4


def _on_meshes():
    """For each mesh: whether it agrees with one device, and the collectives in loops."""
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    x, head, targets, mask = inputs()
    options = LossOptions(4, Z)
    want = found(x, head, targets, mask, options, jnp.float32)
    likely, right = predictions(
        jnp.float32(x), jnp.float32(head), jnp.asarray(targets), candidates=9
    )
    report = {}
    for sizes in [(2, 2, 1, 2), (1, 2, 2, 2), (1, 8, 1, 1), (1, 1, 1, 8), (1, 1, 8, 1)]:
        names = ("data", "fsdp", "seq", "tensor")
        devices = np.array(jax.devices()).reshape(sizes)
        mesh = Mesh(devices, names, axis_types=(AxisType.Auto,) * 4)
        rows = ("data", "fsdp") if B % (sizes[0] * sizes[1]) == 0 else None
        time = "seq" if T % sizes[2] == 0 else None
        place = [
            PartitionSpec(rows, time), PartitionSpec("tensor", "fsdp" if sizes[1] == 2 else None),
            PartitionSpec(rows, time), PartitionSpec(rows, time),
        ]  # fmt: skip
        arrays = [jnp.float32(x), jnp.float32(head), jnp.asarray(targets), jnp.asarray(mask)]
        shardings = [NamedSharding(mesh, spec) for spec in place]
        arrays = [jax.device_put(a, s) for a, s in zip(arrays, shardings)]

        def loss(*args):
            return cross_entropy(*args, options)

        with jax.set_mesh(mesh):
            step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
            compiled = step.lower(*arrays).compile()
            sums, gradients = compiled(*arrays)
            alone = jax.jit(loss)(*arrays)
            predict = functools.partial(predictions, candidates=9, chunk=4)
            nats, correct = jax.jit(predict)(*arrays[:3])
        near = tolerance(np.float32, B * T * VOCAB, 4)
        close = [
            np.allclose(a, b, atol=near * np.max(np.abs(b)), rtol=0)
            for a, b in zip((*sums, *gradients, *alone), (*want, *want[:2]), strict=True)
        ]
        text = compiled.as_text() or ""
        whole = f"{VOCAB}]" if sizes[3] > 1 else "no logits"
        gathers = [line for line in text.splitlines() if "all-gather(" in line]
        report[str(sizes)] = {
            "close": all(close),
            "predictions": np.array_equal(correct, right)
            and np.allclose(nats, likely, atol=tolerance(np.float32, VOCAB, 16), rtol=0),
            "gathered logits": any(whole in line.split("all-gather(")[0] for line in gathers),
            "exchanges": "all-to-all(" in text or "collective-permute(" in text,
        }
    return report


def test_meshes_have_the_value_and_the_gradient_of_one_device(python):
    """Vocabulary over tensor, rows over data and fsdp, time over seq, on eight virtual devices.

    Meshes of 8 do not divide the rows, or the time, which all devices then compute alike.
    """
    code = "import json; from tests.train.test_loss import _on_meshes as f; print(json.dumps(f()))"
    done = subprocess.run(
        [*python, "-c", code],
        env=environment(8),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report) == 5
    for sizes, line in report.items():
        agree = {"close": True, "predictions": True}
        assert line == agree | {"gathered logits": False, "exchanges": False}, sizes
