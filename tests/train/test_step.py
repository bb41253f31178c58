"""One update: what is measured, what is accumulated, what decays, and what is refused."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from miras.data import make_loader
from miras.models import LanguageModel
from miras.train.loss import LossOptions
from miras.train.optimizer import Gradient, decay_mask, make_optimizer
from miras.train.state import create, structure
from miras.train.step import bits_per_byte, make_eval_step, make_train_step, nats_per_target
from tests.tolerances import tolerance

SUMMED = tolerance(np.float32, 256, 4)  # over a vocabulary of bytes


def build(config):
    """(graphdef, optimizer, initial state)."""
    graphdef, params = structure(config.model)
    optimizer = make_optimizer(config.train, decay_mask(params))
    state = jax.jit(lambda: create(config.model, optimizer, config.train.seed))()
    return graphdef, optimizer, state


@pytest.fixture
def setup(tiny):
    """Makes (config, graphdef, initial state, step) of a run."""

    def make(*assignments):
        config = tiny(*assignments)
        graphdef, optimizer, state = build(config)
        options = LossOptions(config.train.loss_chunk, config.train.z_loss)
        return config, graphdef, state, make_train_step(graphdef, optimizer, options=options)

    return make


def read(config, count):
    loader = make_loader(config.data, "train", align=config.model.chunk)
    return list(itertools.islice(loader, count))


def stack(batches):
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), a, b)))


def test_bits_per_byte_is_that_of_the_definition(setup):
    config, graphdef, state, _ = setup()
    (batch,) = read(config, 1)
    batch["mask"][0, 5:] = False
    batch["target_bytes"] = np.where(batch["mask"], 2.0, 0.0).astype(np.float32)
    totals = make_eval_step(graphdef)(state.params, batch)

    model = nnx.merge(graphdef, state.params)
    logits = np.asarray(
        model(batch["inputs"], segment_ids=batch["segment_ids"])[0], dtype=np.float64
    )
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    nats = -np.take_along_axis(log_p, batch["targets"][..., None], axis=-1)[..., 0]
    total, count = nats[batch["mask"]].sum(), batch["mask"].sum()
    np.testing.assert_allclose(nats_per_target(totals), total / count, rtol=SUMMED)
    np.testing.assert_allclose(bits_per_byte(totals), total / np.log(2) / (2 * count), rtol=SUMMED)


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(setup):
    """Batches with 61 and 3 targets: a mean of their means would be far off."""
    config, _, small, two_steps = setup("train.accumulate=2", "train.clip=0.1")
    _, _, large, one_step = setup("train.clip=0.1")
    first, second = read(config, 2)
    first["mask"][0, :3] = False
    second["mask"][...] = False
    second["mask"][1, 4:7] = True
    together = {name: np.concatenate([first[name], second[name]]) for name in first}

    alive = jnp.array(True)
    small, in_parts = two_steps(small, stack([first, second]), alive)
    large, at_once = one_step(large, stack([together]), alive)
    assert int(small.step) == int(large.step) == 1
    np.testing.assert_allclose(in_parts.totals, at_once.totals, rtol=tolerance(np.float32, 64))
    np.testing.assert_allclose(in_parts.gradient_norm, at_once.gradient_norm, rtol=SUMMED)
    # Adam's first update is the learning rate times a sign, so moments are the sharper witness.
    parts, whole = (optax.tree.get(s.opt_state, "mu") for s in (small, large))
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(whole))
    assert scale > 1e-4
    assert largest_difference(parts, whole) < SUMMED * scale


@pytest.mark.slow
def test_only_matrices_decay(tiny):
    config = tiny(
        "memory=mlp", "memory.affine=true", "retention=l2", "train.weight_decay=0.5",
        "train.learning_rate=0.1", "train.warmup=0", "tie=false", "lr_by_position=true",
    )  # fmt: skip
    _, optimizer, state = build(config)
    nothing = Gradient(jax.tree.map(jnp.zeros_like, state.params), jnp.ones(()))
    updates, _ = optimizer.update(nothing, state.opt_state, state.params)
    kept = set()
    leaves = zip(jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(state.params))
    for (path, update), before in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".").rpartition("M0.")[2]
        if jnp.any(update != 0):
            np.testing.assert_allclose(update, -0.05 * before, rtol=tolerance(np.float32, factor=8))
        else:
            kept.add(name)
    assert {
        "mixer.fast.initial.scale",
        "mixer.fast.initial.shift",
        "mixer.norm.scale",
        "mixer.fast.lr_correction",
        "mixer.fast.gates.biases.lr",
        "mixer.fast.gates.biases.log_decay",
        "mixer_norm.scale",
        "mlp_norm.scale",
        "norm.scale",
    } <= kept
    zero_at_first = {f"mixer.fast.gates.kernels.{gate}.kernel" for gate in ("lr", "log_decay")}
    assert not {n for n in kept if "kernel" in n or ".w" in n or "embed" in n} - zero_at_first


def test_a_step_that_is_not_finite_is_not_applied_and_stops_those_after_it(setup):
    config, _, state, step = setup("train.learning_rate=1e30")
    first, second = read(config, 2)
    before = jax.tree.map(np.asarray, (state.params, state.opt_state))
    state, measured = step(state, stack([first]), jnp.array(True))
    assert np.isfinite(measured.gradient_norm)
    assert not measured.finite  # the update is too large to have a finite norm
    state, measured = step(state, stack([second]), measured.finite)
    assert not measured.finite
    assert int(state.step) == 0
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), before)


def test_an_update_makes_no_second_copy_of_the_state(tiny):
    """Temporaries of few tokens: the gradient, its mean and the update; not Adam's new moments."""
    config = tiny("width=256", "train.accumulate=2")
    graphdef, optimizer, state = build(config)
    batches = {name: x[..., :8] for name, x in stack(read(config, 2)).items()}
    step = make_train_step(graphdef, optimizer).lower(state, batches, jnp.array(True)).compile()
    found: Any = step.memory_analysis()
    params = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert found.alias_size_in_bytes > 2.99 * params  # parameters and both moments are donated
    assert found.temp_size_in_bytes < 3.5 * params


def test_a_z_loss_moves_the_gradient_and_not_the_reported_loss(setup):
    config, _, state, step = setup()
    _, _, other, with_z = setup("train.z_loss=2")
    batch = stack(read(config, 1))
    _, plain = step(state, batch, jnp.array(True))
    _, pulled = with_z(other, batch, jnp.array(True))
    assert float(pulled.totals.nats) == float(plain.totals.nats)
    assert abs(float(pulled.gradient_norm) / float(plain.gradient_norm) - 1) > 1e-2


def test_the_step_does_not_recompile_and_learns(setup):
    config, graphdef, state, step = setup()
    batch = stack(read(config, 1))
    alive, losses = jnp.array(True), []
    for _ in range(20):
        state, measured = step(state, batch, alive)
        alive = measured.finite
        losses.append(nats_per_target(measured.totals))
    assert losses[-1] < losses[0] - 0.5
    assert step._cache_size() <= 2  # a first call with arrays that are not placed yet
    assert isinstance(nnx.merge(graphdef, state.params), LanguageModel)
