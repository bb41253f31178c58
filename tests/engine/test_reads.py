"""Several reads of a token, and Mamba-3's several inputs and outputs, which are made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.testing import random_inputs

pytestmark = pytest.mark.usefixtures("float64")

MAMBA3 = miras.preset("mamba3").rule


def close(got, want, tolerance=1e-12):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


# Reads after a link at a chunk's end or at its first token, of a solution, of formed weights, in
# dual form, before the write.
RULES = ("moneta", "memora", "mesa", "atlas", "gated_deltanet", "lact")


@pytest.mark.parametrize(
    "backend", ["xla", pytest.param("reference", marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.exhaustive] * (name not in ("moneta", "mesa")))
        for name in RULES
    ],
)
def test_each_read_is_that_of_a_call_of_its_own(name, backend):
    """Over two chunks; what is written does not depend on reads."""
    rule = miras.preset(name).rule
    W0, q, *others = random_inputs(rule, T=6, H=1, reads=2)
    how = {"chunk": 4, "backend": backend}
    alone = jax.jit(lambda q: miras.scan(rule, W0, q, *others, **how))
    both, after = miras.scan(rule, W0, q, *others, **how)
    assert both.shape == (*q.shape[:4], others[1].shape[-1])
    for n in range(2):
        y, state = alone(q[:, :, :, n])
        close(both[:, :, :, n], y)
        jax.tree.map(close, after.A, state.A)
    gates = {} if not rule.memory.gates() else others[-1]
    found = miras.read(rule, W0, q, after, gates)
    close(found[:, :, :, 1], miras.read(rule, W0, q[:, :, :, 1], after, gates))


def recurrence(W0, q, k, v, gates, ids):
    """h = a h + sum_r ((1 - l) dt a [k_r v_r of the token before] + l dt [k_r v_r]), a = e^(dt A).

    Mamba-3 (2603.15569) token by token, and q_n h for each query.
    """
    y = np.zeros((*q.shape[:4], v.shape[-1]))
    for b, h in np.ndindex(q.shape[0], q.shape[2]):
        for t in range(q.shape[1]):
            if t == 0 or ids[b, t] != ids[b, t - 1]:
                state, before = W0["w1"][h], 0.0
            dt, own = gates["lr"][b, t, h], gates["trapezoid"][b, t, h]
            a = np.exp(dt * gates["log_decay"][b, t, h])
            now = np.einsum("ri,ro->io", k[b, t, h], v[b, t, h])
            state, before = a * (state + (1 - own) * dt * before) + own * dt * now, now
            y[b, t, h] = q[b, t, h] @ state
    return y


@pytest.mark.parametrize("backend", ["xla", "reference"])
@pytest.mark.parametrize(
    "chunk", [16, *(pytest.param(c, marks=pytest.mark.exhaustive) for c in (1, 64))]
)
def test_mimo_is_the_published_recurrence(chunk, backend):
    """In packed documents and in a sequence that is cut inside a chunk, with padding."""
    inputs = random_inputs(MAMBA3, T=21, dk=4, dv=3, terms=2, reads=3)
    W0, *streams = inputs
    ids = np.repeat([[0, 1]], [8, 13], axis=1)
    want = recurrence(*inputs, ids)
    how = {"chunk": chunk, "backend": backend}
    whole, end = miras.scan(MAMBA3, *inputs, segment_ids=ids, **how)
    close(whole, want)
    padded = jax.tree.map(lambda x: np.insert(x, 3, 0.5, axis=1), streams)
    mask, ids = np.arange(22)[None] != 3, np.insert(ids, 3, 0, axis=1)
    state, parts = None, []
    for part in (slice(0, 5), slice(5, 22)):
        own = jax.tree.map(lambda x, part=part: x[:, part], padded)
        labels = {"segment_ids": ids[:, part], "mask": mask[:, part]}
        y, state = miras.scan(MAMBA3, W0, *own, state=state, **labels, **how)
        parts.append(y)
    close(np.concatenate(parts, axis=1)[mask], want[0])
    for name, buffer in end.carried.items():
        close(state.carried[name], buffer)


def test_one_input_and_output_is_siso():
    """Bit for bit, compiled: an axis of one association and of one read changes no operation."""
    W0, q, k, v, gates = jax.tree.map(jnp.asarray, random_inputs(MAMBA3, T=9, dk=4))
    siso = jax.jit(lambda q, k, v: miras.scan(MAMBA3, W0, q, k, v, gates, chunk=4))
    want, end = siso(q, k, v)
    got, after = siso(*(x[:, :, :, None] for x in (q, k, v)))
    np.testing.assert_array_equal(got[:, :, :, 0], want)
    np.testing.assert_array_equal(after.A["w1"], end.A["w1"])


def test_a_rate_of_each_association():
    """One that all share is as many that are equal, also where parts make more associations."""
    rule = miras.override(MAMBA3, "retention.discretised=false")
    W0, q, k, v, gates = random_inputs(rule, T=5, H=1, terms=3)
    assert gates["lr"].shape == (1, 5, 1, 3)
    scan = jax.jit(lambda k, v, gates: miras.scan(rule, W0, q, k, v, gates, chunk=4)[0])
    one = {**gates, "lr": gates["lr"][..., 0]}
    equal = {**gates, "lr": np.repeat(one["lr"][..., None], 3, axis=-1)}
    close(scan(k, v, one), scan(k, v, equal))
    # a rate scales the value that is written
    scaled = v * (gates["lr"] / one["lr"][..., None])[..., None]
    rest = {**one, "trapezoid": np.ones_like(one["trapezoid"])}  # a token writes at its own rate
    close(scan(k, scaled, rest), scan(k, v, {**rest, "lr": gates["lr"]}))


@pytest.mark.parametrize(
    "retention",
    ["elastic_net", pytest.param({"kind": "kl", "coupled": True}, marks=pytest.mark.exhaustive)],
)
def test_a_retention_computed_from_the_rate_takes_one_for_all(retention):
    """A key of 0 beside the token's own writes nothing."""
    rule = miras.Rule("matrix", "dot", retention, "gd")
    W0, q, k, v, gates = random_inputs(rule, T=5, H=1)
    want, _ = miras.scan(rule, W0, q, k, v, gates, chunk=4)
    k, v = (np.stack([x, other], axis=3) for x, other in ((k, 0 * k), (v, v)))
    close(miras.scan(rule, W0, q, k, v, gates, chunk=4)[0], want)


def test_axes_that_do_not_fit_are_refused():
    W0, q, k, v, gates = random_inputs(MAMBA3, terms=2, reads=2)
    with pytest.raises(miras.ConfigError, match="R must be at least 1"):
        miras.scan(MAMBA3, W0, q[:, :, :, :0], k, v, gates)
    own = {**gates, "lr": np.repeat(gates["lr"][..., None], 2, axis=-1)}
    with pytest.raises(miras.ConfigError, match=r"'lr' has shape \(1, 3, 2, 2\).*\[B, T, H\]"):
        miras.scan(MAMBA3, W0, q, k, v, own)
    _, state = miras.scan(MAMBA3, W0, q, k, v, gates)
    with pytest.raises(miras.ConfigError, match="state is of another rule"):
        miras.scan(MAMBA3, W0, q, k[:, :, :, 0], v[:, :, :, 0], gates, state=state)
    kv = miras.preset("transformer").rule
    W0, q, k, v, gates = random_inputs(kv, reads=2)
    with pytest.raises(miras.ConfigError, match=r"q has shape .* \[B, T, H, D\]\."):
        miras.scan(kv, W0, q, k, v, gates)
