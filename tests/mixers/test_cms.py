"""The channel mixer `cms` against NumPy; its updates are tested in tests/train/test_spans.py."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras import override, preset
from miras.mixers import CMSChannel
from miras.models import LanguageModel


def gelu(z):
    return 0.5 * z * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (z + 0.044715 * z**3)))


def test_the_chain_is_its_equation():
    layer = CMSChannel(periods=(1, 5, 9)).build(4, 2.0, nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    z = x
    for n in range(3):
        up, down = (getattr(layer, side)[f"level{n}"].kernel[...] for side in ("up", "down"))
        z = z + gelu(z @ np.asarray(up, np.float64)) @ np.asarray(down, np.float64)
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), z - x, rtol=1e-5, atol=1e-5)


def test_levels_have_no_state():
    """What a sequence leaves behind is that of the token mixer alone."""
    config = override(preset("linear_attention"), "width=8", "layers=1", "heads=1")
    shapes = []
    for words in ((), ("channel=cms",)):
        model = override(config, *words)
        shapes.append(jax.eval_shape(lambda: LanguageModel(model, nnx.Rngs(0)).init_state(1)))  # noqa: B023
    assert shapes[0] == shapes[1]
