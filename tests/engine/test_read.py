"""miras.read: what memories answer without a write."""

import jax
import numpy as np
import pytest

import miras
from miras.testing import random_inputs


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["titans_lmm", "yaad", "gated_deltanet", "mesa", "hgrn2"])
def test_a_read_is_a_scan_that_writes_nothing(name):
    config = miras.preset(name)
    W0, q, k, v, gates = random_inputs(config.rule, B=2, T=8, dk=4)
    options = dict(chunk=4, exact=config.exact)
    _, state = miras.scan(config.rule, W0, q, k, v, gates, **options)
    before = jax.tree.map(np.asarray, state)
    got = miras.read(config.rule, W0, q[:, :3], state)
    silent = np.zeros((2, 3), bool)
    first = [x[:, :3] for x in (q, k, v)], {n: g[:, :3] for n, g in gates.items()}
    want, _ = miras.scan(config.rule, W0, *first[0], first[1], state=state, mask=silent, **options)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, state, before)


def test_attention_has_no_weights_to_read():
    rule = miras.preset("transformer").rule
    q = np.ones((1, 2, 1, 4), np.float32)
    _, state = miras.scan(rule, {}, q, q, q)
    with pytest.raises(miras.ConfigError, match="memory 'kv' keeps tokens"):
        miras.read(rule, {}, q, state)
