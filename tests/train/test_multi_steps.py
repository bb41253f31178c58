"""Checkpoints of runs that accumulated gradients in the optimiser's state restore."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from miras.train import TrainConfig
from miras.train.checkpoints.checkpointer import Checkpoints, restore
from miras.train.optimizer import Gradient, make_optimizer
from miras.train.state import TrainState, abstract, create_from
from tests.tolerances import tolerance

COUNTS = 61.0, 3.0


@pytest.fixture
def optimizer():
    config = TrainConfig(steps=20, warmup=0, accumulate=2, clip=0.1)
    return make_optimizer(config, {"w": True, "b": False})


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), "b": jnp.ones(4) * seed}


def of_earlier_version(optimizer, params, gradients) -> TrainState:
    """The state after one update by `optax.MultiSteps`, as earlier versions built it."""

    def weighted(params) -> Any:
        return Gradient(params, jnp.zeros(()))

    def update(gradient, state, params):
        updates, state = optimizer.update(gradient, state, params.total)
        return Gradient(updates, jnp.zeros(())), state

    def init(params):
        return optimizer.init(params.total)

    inner: Any = optax.GradientTransformation(init, update)  # pyright: ignore
    steps = optax.MultiSteps(inner, 2).gradient_transformation()
    state = steps.init(weighted(params))
    for gradient, count in zip(gradients, COUNTS):
        g: Any = Gradient(gradient, jnp.float32(count))
        updates, state = steps.update(g, state, weighted(params))
        params = optax.apply_updates(params, updates.total)  # pyright: ignore
    return TrainState(params, state, jnp.int32(1), jax.random.key(0))


def test_an_accumulating_state_restores_as_the_state_within_it(optimizer, tmp_path):
    params, gradients = drawn(1), (drawn(2), drawn(3))
    saved = of_earlier_version(optimizer, params, gradients)
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, saved, None)
    checkpoints.close()
    like = abstract(jax.eval_shape(lambda: create_from(params, optimizer, 0)))
    found = restore(tmp_path, like)
    assert found is not None
    assert not found.damaged
    assert jax.tree.structure(found.state) == jax.tree.structure(like)
    inner: Any = optax.tree.get(saved.opt_state, "inner_opt_state")
    jax.tree.map(np.testing.assert_array_equal, found.state.opt_state, inner)
    jax.tree.map(np.testing.assert_array_equal, found.state.params, saved.params)

    # It is the state of one update with the sum of the gradients.
    total = Gradient(jax.tree.map(jnp.add, *gradients), jnp.float32(sum(COUNTS)))
    _, now = optimizer.update(total, optimizer.init(params), params)
    close = tolerance(np.float32, 12, 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=close), inner, now)
