"""Rows compacted to their present tokens, and scattered back."""

import jax.numpy as jnp
import numpy as np
import pytest

from miras.engine.masking import compact, where

MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]], bool)


def test_present_tokens_fill_the_first_places_in_their_order():
    x = np.arange(1, 21).reshape(4, 5)
    rows = compact(jnp.asarray(MASK))
    packed = np.asarray(rows.packed(jnp.asarray(x)))
    for row, mask, got in zip(x, MASK, packed):
        np.testing.assert_array_equal(got, [*row[mask], *[0] * (~mask).sum()])
    np.testing.assert_array_equal(rows.count, MASK.sum(axis=1))
    np.testing.assert_array_equal(rows.present.sum(axis=1), rows.count)


def test_spread_is_the_inverse_and_zero_at_masked_tokens():
    rows = compact(jnp.asarray(MASK))
    by_place = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)) + 10)  # empty ones too
    spread = np.asarray(rows.spread(by_place))
    np.testing.assert_array_equal(spread[~MASK], 0)
    np.testing.assert_array_equal(rows.spread(rows.packed(jnp.asarray(spread))), spread)
    assert (spread[MASK] != 0).all()


@pytest.mark.parametrize("rest", [(), (4,), (4, 2, 3)])
def test_a_mask_of_rows_selects_rows(rest):
    """Also where B = T: then [B] is not a mask over time."""
    mask = np.array([True, False, False, True])
    x = np.random.default_rng(0).normal(size=(4, *rest))
    got = np.asarray(where(jnp.asarray(mask), jnp.asarray(x), 0))
    np.testing.assert_array_equal(got[~mask], 0)
    np.testing.assert_array_equal(got[mask], np.float32(x[mask]))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 4, 1)])
def test_a_mask_of_other_axes_is_an_error(shape):
    with pytest.raises(AssertionError, match="mask"):
        where(jnp.ones(shape, bool), jnp.ones((4, 4)), 0)
