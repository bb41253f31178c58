"""The dtypes of parameters and moments between updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from miras.train import TrainConfig, load_run, train
from miras.train.optimizer import Gradient, make_optimizer
from miras.train.optimizers import AxisNames
from miras.train.state import create_from

AXES = {"w": AxisNames(("embed", "mlp")), "b": AxisNames(("embed",))}


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(4, 6)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=4), jnp.float32),
    }


def made(**train):
    config = TrainConfig(steps=20, warmup=0, **train)
    return make_optimizer(config, {"w": True, "b": False}, AXES)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_first_moments_are_kept_in_the_optimizer_dtype(name):
    params, gradient = drawn(0), Gradient(drawn(1), jnp.ones(()))
    narrow = made(optimizer=name, optimizer_dtype="bfloat16")
    whole = made(optimizer=name)
    updates, state = narrow.update(gradient, narrow.init(params), params)
    exact, reference = whole.update(gradient, whole.init(params), params)
    first = [m for m in jax.tree.leaves(state) if m.dtype == jnp.bfloat16]
    assert sum(m.size for m in first) == 4 * 6 + 4
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(reference), strict=True):
        assert a.dtype in (b.dtype, jnp.bfloat16)
        np.testing.assert_allclose(a.astype(b.dtype), b, rtol=2**-8, atol=1e-6)
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0.1, atol=1e-3 * 0.2)


def test_a_bfloat16_master_rounds_the_parameters_after_a_float32_update():
    optimizer = made(learning_rate=0.1)
    state = create_from(drawn(0), optimizer, 0, master="bfloat16")
    assert {p.dtype for p in jax.tree.leaves(state.params)} == {jnp.dtype("bfloat16")}
    moments = optax.tree.get(state.opt_state, "nu")
    assert {m.dtype for m in jax.tree.leaves(moments)} == {jnp.dtype("float32")}
    gradient = Gradient(drawn(1), jnp.ones(()))
    updates, _ = optimizer.update(gradient, state.opt_state, state.params)
    after = optax.apply_updates(state.params, updates)
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), state.params)
    want, _ = optimizer.update(gradient, optimizer.init(exact), exact)
    for got, start, update in zip(*map(jax.tree.leaves, (after, exact, want))):
        np.testing.assert_array_equal(got, (start + update).astype(jnp.bfloat16))


@pytest.mark.exhaustive
def test_a_run_in_bfloat16_resumes_as_an_undisturbed_one(tiny, tmp_path):
    words = (
        "dtype=bfloat16", "master=bfloat16", "optimizer_dtype=bfloat16", "remat=minimal",
        "accumulate=2", "loss_chunk=20", "z_loss=1e-4", "schedule=constant",
    )  # fmt: skip
    whole = train(tiny(*words, steps=4), tmp_path / "whole")
    train(tiny(*words, steps=3), tmp_path / "cut")
    resumed = train(tiny(*words, steps=4), tmp_path / "cut")
    assert resumed.resumed_from == 3
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, whole.state.params)
    assert load_run(tmp_path / "cut").model.embedding[...].dtype == jnp.bfloat16
