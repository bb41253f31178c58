"""miras.read: what memories answer without a write."""

import jax
import numpy as np
import pytest

import miras
from miras.config import to_dict
from miras.testing import random_inputs
from tests.conformance.oracle_algorithms import newton_weight
from tests.conformance.oracle_memory import predict


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["titans_lmm", "yaad", "gated_deltanet", "mesa", "hgrn2"])
def test_a_read_is_the_memorys_answer(name):
    config = miras.preset(name)
    W0, q, k, v, gates = random_inputs(config.rule, B=2, T=8, dk=4)
    options = dict(chunk=4, exact=config.exact)
    _, state = miras.scan(config.rule, W0, q, k, v, gates, **options)
    before = jax.tree.map(np.asarray, state)
    got = miras.read(config.rule, W0, q[:, :3], state)
    memory, algorithm = to_dict(config.rule.memory), to_dict(config.rule.algorithm)
    for b, t, h in np.ndindex(2, 3, q.shape[2]):
        W = {n: np.asarray(leaf[b, h]) for n, leaf in state.A.items()}
        W = newton_weight(W, algorithm["ridge"]) if algorithm["kind"] == "newton" else W
        fixed = {n: leaf[h] for n, leaf in W0.items() if n not in W}
        want = predict(memory, W | fixed, q[b, t, h])
        np.testing.assert_allclose(got[b, t, h], want, rtol=1e-9, atol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, state, before)


def test_attention_has_no_weights_to_read():
    rule = miras.preset("transformer").rule
    q = np.ones((1, 2, 1, 4), np.float32)
    _, state = miras.scan(rule, {}, q, q, q)
    with pytest.raises(miras.ConfigError, match="memory 'kv' keeps tokens"):
        miras.read(rule, {}, q, state)
