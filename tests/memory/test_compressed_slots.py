"""Compressed slots (Trellis): packed and cut sequences, gradients, and what it reduces to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.layers.gates import GateProjections
from miras.testing import random_inputs
from tests.conformance import oracle_slots

pytestmark = pytest.mark.usefixtures("float64")

RULE = miras.override(miras.preset("trellis").rule, "memory.count=5", "memory.eps=1e-6")
D, DV, H = 4, 3, 2


def inputs(T: int, B: int = 1, rule: miras.Rule = RULE):
    return random_inputs(rule, B=B, T=T, H=H, dk=D, dv=DV, spans={"lr": (0.02, 0.2)})


def close(got, want, tolerance=1e-9):
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def piece(streams, tokens: slice):
    return jax.tree.map(lambda x: x[:, tokens], streams)


@pytest.mark.parametrize("chunk", [1, 4])
def test_packed_documents_are_each_the_published_recurrence(chunk):
    W0, *streams = inputs(23)
    ids = np.repeat([3, 1, 2], [5, 11, 7])[None].astype(np.int32)
    got, _ = miras.scan(RULE, W0, *streams, chunk=chunk, segment_ids=ids)
    for start, stop in ((0, 5), (5, 16), (16, 23)):
        document = slice(start, stop)
        want, _ = oracle_slots.trellis(W0, *piece(streams, document), chunk)
        close(got[:, document], want)


def test_a_state_goes_on_inside_a_chunk():
    W0, *streams = inputs(13)
    want, last = oracle_slots.trellis(W0, *streams, 4)
    state, parts = None, []
    for start, stop in ((0, 6), (6, 7), (7, 13)):
        part = piece(streams, slice(start, stop))
        y, state = miras.scan(RULE, W0, *part, chunk=4, state=state)
        parts.append(y)
    close(np.concatenate(parts, axis=1), want)
    for name, leaf in last.items():
        close(state.A[name], leaf)


@pytest.mark.parametrize("chunk", [1, 4])
def test_gradients_are_the_differences_of_the_published_recurrence(chunk):
    """Along a random direction of each input, by central differences of the oracle."""
    rng, h = np.random.default_rng(2), 1e-5
    given = inputs(7)._asdict()
    weights = rng.normal(size=given["v"].shape)

    def scalar(given):
        return jnp.sum(weights * miras.scan(RULE, **given, chunk=chunk)[0])

    def published(given):
        return np.sum(weights * oracle_slots.trellis(**given, chunk=chunk)[0])

    gradients = jax.jit(jax.grad(scalar))(given)
    leaves, tree = jax.tree.flatten(given)
    for i, (leaf, gradient) in enumerate(zip(leaves, jax.tree.leaves(gradients))):
        move = rng.normal(size=leaf.shape)
        moved = ([*leaves[:i], leaf + s * h * move, *leaves[i + 1 :]] for s in (1, -1))
        up, down = (published(jax.tree.unflatten(tree, x)) for x in moved)
        np.testing.assert_allclose(np.sum(gradient * move), (up - down) / (2 * h), rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("algorithm", ["gd", "dgd"])
@pytest.mark.parametrize("order", ["learn_first", "decay_first"])
def test_linear_writes_are_two_gated_delta_rules(order, algorithm, chunk):
    """One writes codes along keys, the other along values: the second is transposed."""
    changes = f"order={order}", f"algorithm={algorithm}"
    rule = miras.override(RULE, "memory.linear_writes=true", *changes)
    W0, q, k, v, gates = inputs(11, rule=rule)
    _, state = miras.scan(rule, W0, q, k, v, gates, chunk=chunk)
    delta = miras.Rule("matrix", "l2", "l2", algorithm, order=order)
    code = gates["target"]
    shared = {name: gates[name] for name in ("lr", "log_decay")}
    run = functools.partial(miras.scan, delta, gates=shared, chunk=chunk)
    _, of_keys = run({"w1": W0["w1"]}, k, k, code)
    _, of_values = run({"w1": np.swapaxes(W0["w2"], 1, 2)}, v, v, code)
    close(state.A["w1"], of_keys.A["w1"])
    close(state.A["w2"], jnp.swapaxes(of_values.A["w1"], -1, -2))


@pytest.mark.parametrize("retention", ["l2", '{"kind": "l2", "granularity": "slot"}'])
def test_linear_writes_have_a_closed_form(retention):
    """A system for each pass: the tokens one by one, in packed documents and across a cut."""
    changes = "memory.linear_writes=true", f"retention={retention}", "order=decay_first"
    rule = miras.override(RULE, *changes)
    W0, *streams = inputs(11, rule=rule)
    ids = np.repeat([[0, 1]], [3, 8], axis=1)
    want, last = miras.scan(rule, W0, *streams, chunk=1, segment_ids=ids)
    state, parts = None, []
    for part in (slice(0, 6), slice(6, 11)):
        own = piece((*streams, ids), part)
        y, state = miras.scan(
            rule, W0, *own[:-1], chunk=4, exact=True, state=state, segment_ids=own[-1]
        )
        parts.append(y)
    close(np.concatenate(parts, axis=1), want)
    jax.tree.map(close, state.A, last.A)
    with pytest.raises(miras.ConfigError, match="closed form for a linear memory"):
        miras.scan(RULE, W0, *streams, exact=True)


def test_sweeps_lead_to_the_online_rule():
    """After n sweeps the first n + 1 tokens of a chunk are online, so C - 1 sweeps suffice."""
    W0, *streams = inputs(8)
    want, _ = oracle_slots.trellis(W0, *streams, 1)
    got, _ = miras.scan(RULE, W0, *streams, chunk=4, refine=3)
    close(got, want)
    stale, _ = miras.scan(RULE, W0, *streams, chunk=4)
    assert np.abs(stale - want).max() > 1e-3


def test_without_writes_and_decay_it_is_a_static_layer():
    W0, q, k, v, gates = inputs(3)
    held = gates | {name: 0 * gates[name] for name in ("lr", "log_decay")}
    got, _ = miras.scan(RULE, W0, q, k, v, held, chunk=2)
    z = np.einsum("bthi,him->bthm", q, W0["w1"])
    s = z / (1 + np.exp(-z))
    r = (s - s.mean(-1, keepdims=True)) / np.sqrt(s.var(-1, keepdims=True) + 1e-6)
    close(got, np.einsum("bthm,hmo->btho", r, W0["w2"]))


def test_a_token_chooses_its_code_from_the_start():
    """The code is drawn as keys and values are: of unit variance, another for each token."""
    width, rule = 64, miras.override(RULE, "memory.count=32")
    gates = GateProjections(rule, width, H, rank=8, terms=None, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 50, width))
    code = gates(x)["target"]
    assert code.shape == (1, 50, H, 32)
    np.testing.assert_allclose(jnp.std(code, axis=1).mean(), 0.88, atol=0.05)  # cut at 2 sigma
    np.testing.assert_allclose(gates(x)["lr"], 0.08)


@pytest.mark.parametrize(
    ("change", "message"),
    [("count=0", "count=0 must be at least 1"), ("eps=0.0", "eps=0.0 must be positive")],
)
def test_values_out_of_range(change, message):
    with pytest.raises(miras.ConfigError, match=message.replace(".", r"\.")):
        miras.override(RULE, f"memory.{change}")
