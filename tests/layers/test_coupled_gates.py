"""Gates and queries of Momentum DeltaNet's layer, and what its rule reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.layers import MemoryConfig, MemoryLayer
from miras.testing import random_inputs

B, T, H, WIDTH = 2, 19, 2, 8


def layer() -> MemoryLayer:
    config = miras.preset("momentum_deltanet")
    memory = MemoryConfig(config.rule, chunk=4, exact=True)
    made = MemoryLayer(memory, WIDTH, H, config=config.layer, rngs=nnx.Rngs(0))
    graph, params = nnx.split(made)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    moved = [x + 0.3 * jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in leaves]
    return nnx.merge(graph, jax.tree.unflatten(tree, moved))


def test_gates_are_tied_by_an_angle():
    made = layer()
    x = np.random.default_rng(1).normal(size=(B, T, WIDTH)).astype(np.float32)
    found, own = made.fast.gates(jnp.asarray(x)), made.fast.gates

    def logits(name):
        kernel = np.asarray(own.kernels[name].kernel[...], np.float64)
        return x.astype(np.float64) @ kernel + np.asarray(own.biases[name][...], np.float64)

    def softplus(z):
        return np.logaddexp(0, z)

    tied = {n: np.asarray(getattr(own.coupled, n)[...], np.float64)
            for n in ("log_factor", "decay_scale", "momentum_scale")}  # fmt: skip
    eta = 1 + np.tanh(logits("lr") / 2)
    theta = np.arctan(eta * np.exp(tied["log_factor"]))
    want = {
        "lr": eta,
        "update_rate": np.sin(theta) ** 2 / (1 + np.exp(-logits("update_rate"))),
        "log_decay": 2 * np.log(np.cos(theta))
        - np.exp(tied["decay_scale"]) * softplus(-logits("log_decay")),
        "log_momentum": np.maximum(
            -np.exp(tied["momentum_scale"]) * softplus(-logits("log_momentum")), -2
        ),
    }
    assert set(found) == set(want)
    for name, gate in want.items():
        np.testing.assert_allclose(found[name], gate, rtol=2e-5, atol=2e-6, err_msg=name)


def test_the_query_is_corrected_before_the_norm():
    made = layer()
    rng = np.random.default_rng(2)
    mixed = rng.normal(size=(B, T, 3, H, WIDTH // H)).astype(np.float32)
    streams = made.keys(jnp.asarray(mixed), jnp.zeros((B, T, WIDTH)))
    share = np.exp(np.asarray(made.keys.log_correction[...]))[:, None]
    want = mixed[:, :, 0] - share * mixed[:, :, 1]
    want /= np.linalg.norm(want, axis=-1, keepdims=True)
    np.testing.assert_allclose(streams.q, want, rtol=1e-4, atol=1e-5)


def test_a_cut_stream_with_documents_is_the_whole():
    made, cut = layer(), 7
    x = jnp.asarray(np.random.default_rng(3).normal(size=(B, T, WIDTH)), jnp.float32)
    ids = jnp.asarray(np.repeat([[0, 1, 2]], B, 0).repeat([5, 6, 8], 1))
    whole, _, _ = made(x, segment_ids=ids)
    head, state, _ = made(x[:, :cut], segment_ids=ids[:, :cut])
    tail, _, _ = made(x[:, cut:], segment_ids=ids[:, cut:], state=state)
    np.testing.assert_allclose(jnp.concatenate([head, tail], 1), whole, rtol=1e-4, atol=1e-5)
    alone, _, _ = made(x[:, 5:11])
    np.testing.assert_allclose(whole[:, 5:11], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("chunk", [1, 16])
def test_without_momentum_it_is_the_gated_delta_rule(chunk):
    rule = miras.preset("momentum_deltanet").rule
    W0, q, k, v, gates = random_inputs(rule, T=T, dk=4, spans={"lr": (0.1, 1.5)})
    gates["log_momentum"] = np.full_like(gates["lr"], -90.0)  # mu of 1e-39
    got, _ = miras.scan(rule, W0, q, k, v, gates, chunk=chunk, exact=True)
    plain = {"lr": gates["lr"] * gates["update_rate"], "log_decay": gates["log_decay"]}
    delta = miras.preset("gated_deltanet").rule
    want, _ = miras.scan(delta, W0, q, k, v, plain, chunk=chunk, exact=True)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
