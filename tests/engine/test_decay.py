"""Decays per channel, from next to none to minus infinity, against the token-by-token reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.config import config_hash, from_dict, to_dict
from miras.engine.decay import DecaySums, ratios
from miras.optim.coefficients import MIN_LOG
from miras.testing.gradients import value_and_gradients
from tests.tolerances import tolerance

B, T, H, D = 1, 21, 1, 4
CHUNK = 16  # two blocks, and a chunk that is cut short
FORMS = {
    "key": ("key", "learn_first", False),
    "value": ("value", "learn_first", False),
    "both": ("key_value", "decay_first", False),
    "key, exact": ("key", "decay_first", True),
    "both, exact": ("key_value", "learn_first", True),
}


def made(form):
    """A rule, its options and inputs: log decays from -1e-4 to -1e3."""
    granularity, order, exact = FORMS[form]
    rule = miras.Rule("matrix", "l2", {"kind": "l2", "granularity": granularity}, "gd", order=order)
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, B, T, H, D))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    gates = {"lr": rng.uniform(0.1, 0.9, size=(B, T, H))}
    for gate in rule.retention.gates():
        gates[gate.name] = -(10 ** rng.uniform(-4, 3, size=(B, T, H, D)))
    return rule, exact, ({"w1": rng.normal(size=(H, D, D))}, q, k, v, gates)


def run(form, arrays, backend):
    """The reads and the last state."""
    rule, exact, _ = made(form)
    y, state = miras.scan(rule, *arrays, chunk=CHUNK, exact=exact, backend=backend)
    return y, state.A["w1"]


def reads_state_and_gradients(form, arrays, backend):
    """The reads, the state, and the gradients of a scalar of both by all arrays."""
    found = functools.partial(run, form, backend=backend)
    return jax.jit(functools.partial(value_and_gradients, found))(arrays)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_exact_at_any_log_decay(form):
    *_, arrays = made(form)
    got, want = (reads_state_and_gradients(form, arrays, b) for b in ("xla", "reference"))
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays)
    for x, y in zip(run(form, narrow, "xla"), want[0], strict=True):
        # 37 products and sums of numbers of order one; sums of logs of 1e3 do not cancel.
        np.testing.assert_allclose(x, y, atol=tolerance(np.float32, 37, 10))


@pytest.mark.usefixtures("float64")
def test_a_channel_that_forgets_all_is_finite_and_keeps_what_comes_after():
    _, _, (W0, q, k, v, gates) = made("key")
    gates["log_decay"][:, 5, :, 1] = -np.inf
    scan = functools.partial(run, "key", backend="xla")
    found = reads_state_and_gradients("key", (W0, q, k, v, gates), "xla")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    # The floor of -100 changes the state by less than exp(-100) of it: below all rounding.
    floor = gates | {"log_decay": np.maximum(gates["log_decay"], MIN_LOG)}
    for x, y in zip(scan((W0, q, k, v, gates)), scan((W0, q, k, v, floor)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_runs_of_the_former_floor_keep_it():
    per_channel = miras.preset("kda")
    assert per_channel.rule.retention.min_log_decay == MIN_LOG
    old = to_dict(per_channel)
    old["rule"]["retention"]["min_log_decay"] = -5.0
    kept = from_dict(type(per_channel), old)
    assert kept.rule.retention.min_log_decay == -5.0
    assert config_hash(kept) != config_hash(per_channel)
    by_head = miras.preset("yaad")  # whose decays are per head: the floor says nothing
    old = to_dict(by_head)
    old["rule"]["retention"]["min_log_decay"] = -5.0
    assert config_hash(from_dict(type(by_head), old)) == config_hash(by_head)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("read", [0.0, 1.0], ids=["previous token", "token"])
def test_ratios_are_products_of_the_decays_between_two_tokens(read):
    log = -np.random.default_rng(0).uniform(size=(6, 3))
    own = read * log  # 0 where a token reads the state before its decay
    want = np.zeros((6, 6, 3))
    for t in range(6):
        want[t, t] = 1
        for s in range(t):
            want[t, s] = np.prod(np.exp(log[s + 1 : t]), axis=0) * np.exp(own[t])
    found = ratios(DecaySums(jnp.asarray(log), jnp.asarray(own), jnp.cumsum(log, 0) - log + own))
    np.testing.assert_allclose(found, want, rtol=1e-12)
