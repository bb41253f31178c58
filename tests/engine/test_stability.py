"""Noise, constants and outliers through every preset in bfloat16.

10,000 tokens of presets that have every member between them in CI; 100,000 of each preset in the
exhaustive suite.

The one exception is `transformer`, at 2,000: it keeps all tokens, in no state that could diverge.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.models.blocks import Block
from tests import selection
from tests.rules import RULES, labels

PIECE, WIDTH, HEADS = 10_000, 8, 2
# Attention over all of them would be 10^10 scores.
SHORTER = {"transformer": (2_000, 1)}  # length and number of pieces


def tokens(piece: int) -> jax.Array:
    """[3, PIECE, WIDTH]: a row of noise, one of constants, one of noise with outliers of 1e4."""
    rng = np.random.default_rng(piece)
    noise = rng.normal(size=(PIECE, WIDTH))
    constant = np.broadcast_to(np.linspace(-3, 3, WIDTH), noise.shape)
    outliers = noise * np.where(rng.uniform(size=(PIECE, 1)) < 0.01, 1e4, 1.0)
    return jnp.asarray(np.stack([noise, constant, outliers]), jnp.bfloat16)


SAMPLE = selection.covering({name: labels(name) for name in RULES}) | {"titans_mac"}


@pytest.fixture
def optimised(name):
    """Compile in full what then runs for minutes: Atlas with its thousands of features."""
    jax.config.update("jax_disable_most_optimizations", not name.startswith("atlas"))
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("pieces", [1, pytest.param(10, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "name", selection.sampled([*RULES, "titans_mac", "titans_mag", "titans_mal"], SAMPLE)
)
def test_every_preset_stays_finite(name, pieces):
    config = miras.preset(name)
    config = dataclasses.replace(config, width=WIDTH, heads=HEADS)
    layer = Block(config, "M", nnx.Rngs(0)).mixer
    graph, params = nnx.split(layer)
    # Gates that see the token, so that outliers reach them as well.
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)

    @jax.jit
    def read(params, x, state):
        y, state, _ = nnx.merge(graph, params)(x, state=state)
        return y, state

    state = jax.jit(lambda params: nnx.merge(graph, params).init_state(3, jnp.bfloat16))(params)
    length, pieces = SHORTER.get(name, (PIECE, pieces))
    for piece in range(pieces):
        y, state = read(params, tokens(piece)[:, :length], state)
        assert jnp.isfinite(y).all(), f"outputs after {(piece + 1) * length} tokens"
    for leaf in jax.tree.leaves(state):
        assert jnp.isfinite(leaf).all()
