"""Which memories the walk keeps for the backward pass changes what it takes, and no value."""

import chex
import jax
import jax.numpy as jnp
import pytest

import miras
from miras.backends.xla.loop import checkpoint_interval
from miras.testing import random_inputs
from miras.testing.inputs import scan_with_loss
from tests.engine.test_tiles import LABELS

# A momentum, a window, an algorithm that acts once a chunk, a lag token, an exact form. 11 tokens
# are three tiles of 4, so that the last group of two is padded and the state ends inside a chunk.
CASES = {
    "titans_lmm": "one segment",
    "atlas": "a mask",
    "lact": "one segment",
    "memora": "a mask",
    "gated_deltanet": "segments anywhere",
}


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(0.3)
def test_values_and_gradients_are_the_same(name):
    config = miras.preset(name)
    arguments = jax.tree.map(jnp.asarray, random_inputs(config.rule, B=2, T=11, dk=4))

    def results(save_every):
        def total(arguments):
            y, *rest = scan_with_loss(
                config.rule,
                *arguments,
                chunk=4,
                exact=config.exact,
                save_every=save_every,
                backend="xla",
                **LABELS[CASES[name]],
            )
            return jnp.sum(jnp.sin(y)), rest

        return jax.jit(jax.value_and_grad(total, has_aux=True))(arguments)

    # The same operations on the same numbers, but for how XLA fuses them and orders its sums.
    chex.assert_trees_all_close(results(2), results(None), rtol=1e-12, atol=1e-12)


MATRIX = miras.Rule("matrix", "l2", "l2", "momentum")


def kept(tiles, save_every):
    """Bytes that a gradient takes beside its arguments and results, for tiles of 4 tokens."""
    W0, *streams = random_inputs(MATRIX, B=1, T=4 * tiles, dk=16, dtype="f4")

    def total(W0, streams):
        return jnp.sum(miras.scan(MATRIX, W0, *streams, chunk=4, save_every=save_every)[0])

    compiled = jax.jit(jax.grad(total, (0, 1))).lower(W0, streams).compile()
    return compiled.memory_analysis().temp_size_in_bytes, (W0, streams)


def test_memory_grows_with_the_square_root_of_the_memories():
    """Beside what tokens take, which is the same."""
    few, many = 64, 256
    each, arguments = kept(few, None)
    W0, streams = (sum(x.nbytes for x in jax.tree.leaves(tree)) for tree in arguments)
    state, tokens = 2 * W0, streams / few  # A and S; q, k, v and gates of a tile

    growth = kept(many, None)[0] - each
    assert growth < (many - few) * (state + 3 * tokens)  # tokens: as the tiles have them, y, dy
    of_root = kept(many, "sqrt")[0] - kept(few, "sqrt")[0]
    fewer = many - few - 2 * (many**0.5 - few**0.5)
    assert growth - of_root > 0.9 * fewer * state


def test_the_square_root_falls_on_whole_groups_where_it_can():
    assert [checkpoint_interval("sqrt", tiles, 1) for tiles in (1, 4, 64, 128, 2048)] == [
        1,
        2,
        8,
        8,
        32,
    ]
    assert checkpoint_interval("sqrt", 101, 1) == 11  # a prime: the last group is padded
    assert checkpoint_interval(3, 100, 2) == 6
    assert checkpoint_interval(3, 4, 1) == 3
    assert checkpoint_interval(None, 100, 1) == checkpoint_interval(5, 1, 1) == 1


@pytest.mark.parametrize("bad", [0, -2, 1.5, True, "root"])
def test_anything_else_is_refused(bad):
    W0, *streams = random_inputs(MATRIX, B=1, T=4, dk=4, dtype="f4")
    with pytest.raises(
        miras.ConfigError, match=r"save_every=.* (must be a number of chunks|is not a whole number)"
    ):
        miras.scan(MATRIX, W0, *streams, chunk=4, save_every=bad)


def test_a_model_takes_it_as_an_override():
    config = miras.override(miras.preset("yaad"), "save_every=sqrt")
    assert config.save_every == "sqrt"
    assert miras.override(config, "save_every=8").save_every == 8
    with pytest.raises(miras.ConfigError, match=r"model.save_every=0 must be a number of chunks"):
        miras.override(config, "save_every=0")
