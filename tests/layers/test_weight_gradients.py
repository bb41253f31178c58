"""The dtype in which the gradients of weights are summed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras import override, preset
from miras.layers.conv import CausalConv
from miras.layers.param import LinearGeneral
from miras.layers.weight_gradients import product, spread, summed_in
from miras.train.state import structure
from tests.tolerances import tolerance

TOKENS = 512


def drawn(dtype):
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.normal(size=s) for s in [(2, TOKENS // 2, 3), (3, 2, 5), (2, 256, 2, 5)])
    return tuple(jnp.asarray(a, dtype) for a in (x, kernel, dy))


def gradients(dtype, summed):
    x, kernel, dy = drawn(dtype)
    wide = kernel.astype(jnp.float32)
    y: Any
    y, back = jax.vjp(lambda x, kernel: product(x, kernel, summed), x, wide)
    want = np.einsum("bti,bthd->ihd", *(np.asarray(a, np.float64) for a in (x, dy)))
    assert y.dtype == x.dtype
    dx, dkernel = back(dy)
    plain = jnp.einsum("bthd,ihd->bti", dy, kernel)
    near = tolerance(dtype, 10, 4) * float(jnp.max(jnp.abs(plain)))
    np.testing.assert_allclose(dx.astype(jnp.float32), plain.astype(jnp.float32), atol=near)
    error = np.max(np.abs(np.asarray(dkernel, np.float64) - want)) / np.max(np.abs(want))
    return dkernel, error


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_float32_sum_has_the_rounding_of_float32(dtype):
    """Whatever the dtype of what is summed."""
    dkernel, error = gradients(dtype, "float32")
    assert dkernel.dtype == jnp.float32
    assert error < tolerance(np.float32, TOKENS, 4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_bfloat16_sum_is_rounded_to_what_devices_send(dtype):
    dkernel, error = gradients(dtype, "bfloat16")
    np.testing.assert_array_equal(dkernel, dkernel.astype(jnp.bfloat16).astype(jnp.float32))
    assert tolerance(np.float32, TOKENS, 4) < error < tolerance(jnp.bfloat16, 1, 4)


def test_weights_of_channels_sum_their_gradients_in_float32():
    """Those of a convolution; each token's part is rounded to bfloat16, the sum is not."""
    x, _, dy = drawn("bfloat16")
    conv = CausalConv((2, 5), ("heads", None), 4, nnx.Rngs(0))
    graphdef, weights = nnx.split(conv)
    ids = jnp.ones(x.shape[:2], jnp.int32)

    def run(weights):
        conv = nnx.merge(graphdef, weights)
        return conv(dy, ids, None, conv.init_state(2, dy.dtype))[0]

    (gradient,) = jax.tree.leaves(jax.vjp(run, weights)[1](dy)[0])
    exact = np.asarray(dy, np.float64)
    want = [np.sum(exact[:, lag:] * exact[:, : exact.shape[1] - lag], (0, 1)) for lag in range(4)]
    scale = np.sqrt(np.sum(exact**4, (0, 1)))
    assert gradient.dtype == jnp.float32
    assert np.all(gradient != gradient.astype(jnp.bfloat16).astype(jnp.float32))
    assert np.all(np.abs(gradient - np.array(want)) < 2**-8 * scale)


def test_the_gradient_of_a_weight_of_channels_is_that_of_its_dtype():
    with jax.enable_x64(True):
        x, weight = jnp.ones((2, 3, 4), jnp.float64), jnp.full(4, 1 / 3, jnp.float32)
        assert spread(weight, x).dtype == jnp.float64
        gradient = jax.grad(lambda w: jnp.sum(spread(w, x) * (1 / 3)))(weight.astype(jnp.float64))
        np.testing.assert_allclose(gradient, 2, rtol=1e-15)


def test_a_model_sums_all_linear_maps_so():
    config = override(preset("yaad"), "width=8", "heads=2", "layers=2", "tie=false")
    graphdef, params = structure(config)
    model = nnx.merge(summed_in(graphdef, params, "bfloat16"), params)
    maps = [m for _, m in nnx.iter_modules(model) if isinstance(m, LinearGeneral)]
    assert len(maps) > 4
    assert {m.gradient_dtype for m in maps} == {"bfloat16"}
    before = nnx.iter_modules(nnx.merge(graphdef, params))
    assert {m.gradient_dtype for _, m in before if isinstance(m, LinearGeneral)} == {None}
