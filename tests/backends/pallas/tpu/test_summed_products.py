"""Sums of products over tokens as one product: the same values, in fewer products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.backends.pallas.tpu.register_layouts import Layouts, RegisterMatrix, leave
from miras.backends.pallas.tpu.register_lowerings import evaluate_on_tpu
from miras.backends.pallas.tpu.summed_products import with_summed_products
from miras.backends.pallas.trace.jaxprs import equations
from miras.backends.pallas.trace.program import trace

TOKENS, WIDTH, HIDDEN = 16, 8, 24


def products(program):
    return [eqn for eqn in equations(program.jaxpr) if eqn.primitive.name == "dot_general"]


def matrices(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def over_rows(x, y, precision=None):
    """x^T y, as the gradient of a weight is."""
    return jax.lax.dot_general(x, y, (((0,), (0,)), ((), ())), precision=precision)


def both(function, *args):
    """The function's program and that with joined products, which have the same values."""
    before = trace(function, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args))
    after = with_summed_products(before)
    wanted, found = (jax.core.eval_jaxpr(p.jaxpr, p.constants, *args) for p in (before, after))
    for x, y in zip(wanted, found, strict=True):
        bound = np.finfo("float32").eps * np.sqrt(3 * len(args[-1])) * 8
        np.testing.assert_allclose(y, x, rtol=0, atol=bound * np.abs(x).max())
    return before, after


XY = ((TOKENS, WIDTH), (TOKENS, HIDDEN))


def test_a_sum_of_three_products_is_one_product():
    """Of which one is transposed and one is in a sum with what is no product."""

    def gradient(weight, x1, y1, x2, y2, x3, y3):
        return (over_rows(x1, y1) + 0.5 * weight) + (over_rows(y2, x2).T + over_rows(x3, y3))

    weight, *rest = matrices((WIDTH, HIDDEN), *3 * XY)
    before, after = both(gradient, weight, *rest)
    assert (len(products(before)), len(products(after))) == (3, 1)
    (one,) = products(after)
    assert one.invars[0].aval.shape == (3 * TOKENS, WIDTH)


def test_products_and_sums_that_others_need_stay():
    def gradient(x1, y1, x2, y2, x3, y3):
        first = over_rows(x1, y1)
        inner = first + over_rows(x2, y2)
        return jnp.abs(first), jnp.abs(inner), inner + over_rows(x3, y3)

    before, after = both(gradient, *matrices(*3 * XY))
    assert len(products(before)) == len(products(after)) == 3


def test_calls_without_results_are_left_out():
    """Such a call stays in a program where nothing of what it computed is needed."""

    def gradient(x1, y1, x2, y2):
        jax.jit(lambda x: ())(x1)
        return over_rows(x1, y1) + over_rows(x2, y2)

    before, after = both(gradient, *matrices(*2 * XY))
    assert any(not eqn.outvars for eqn in before.jaxpr.eqns)
    assert all(eqn.outvars for eqn in after.jaxpr.eqns)
    assert len(products(after)) == 1


@pytest.mark.parametrize(
    ("tokens", "width", "hidden", "count"),
    [
        (32, 8, 24, 1),
        (40, 8, 24, 3),
        (64, 128, 512, 2),
        (64, 128, 504, 3),
        (128, 128, 512, 3),
        (12, 8, 24, 3),
    ],
)
def test_products_join_where_that_pays(tokens, width, hidden, count):
    """Up to 128 rows together, of whole registers: those of few rows, or of many entries."""

    def gradient(x1, y1, x2, y2, x3, y3):
        return over_rows(x1, y1) + over_rows(x2, y2) + over_rows(x3, y3)

    _, after = both(gradient, *matrices(*3 * ((tokens, width), (tokens, hidden))))
    assert len(products(after)) == count


def test_precisions_are_not_mixed():
    """A product of full precision stays alone."""

    def gradient(x1, y1, x2, y2):
        exact = over_rows(x1, y1, jax.lax.Precision.HIGHEST)
        return jax.nn.relu(exact + over_rows(x2, y2)) + over_rows(x2, jax.nn.relu(y1))

    before, after = both(gradient, *matrices(*2 * XY))
    assert len(products(before)) == len(products(after)) == 3


def test_calls_beside_sums_are_kept():
    """Functions with a derivative of their own, whose equations cannot be bound as they are."""

    @jax.custom_jvp
    def half(x):
        return 0.5 * x

    half.defjvp(lambda x, t: (half(*x), 0.5 * t[0]))

    def gradient(x1, y1, x2, y2):
        return half(over_rows(x1, half(y1)) + over_rows(x2, y2))

    before, after = both(gradient, *matrices(*2 * XY))
    assert (len(products(before)), len(products(after))) == (2, 1)


def test_joined_operands_keep_their_layout():
    """Matrices that are stored transposed are joined transposed: nothing is moved."""
    x, y = matrices((4, 8), (6, 8))
    program = trace(lambda x, y: jnp.concatenate([x, y]), x, y)

    def turned(array):
        return RegisterMatrix(array.T.shape, Layouts((array, None)), 1)

    (one,) = evaluate_on_tpu(
        trace(lambda x, y: jnp.concatenate([x, y], 1), x.T, y.T).jaxpr, [], turned(x), turned(y)
    )
    assert one.layouts.has(1)
    assert not one.layouts.has(0)
    np.testing.assert_array_equal(leave(one), np.concatenate([x, y]).T)
    (plain,) = evaluate_on_tpu(program.jaxpr, [], x, y)
    np.testing.assert_array_equal(leave(plain), np.concatenate([x, y]))
