"""Keys that a rule makes itself, from gates and carried buffers: reductions, cuts, gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.engine.buffers import ChunkBuffers
from miras.layers.gates import GateProjections
from miras.testing import random_inputs
from tests.conformance import oracle_keys

pytestmark = pytest.mark.usefixtures("float64")

NAMES = ("gated_deltanet2", "preconditioned_gated_deltanet", "preconditioned_kda")
SPANS = {"lr": (0.2, 0.8)}
EVERY = [("gated_deltanet2", 16, True), ("preconditioned_kda", 16, False), ("mamba3", 16, False)]
EVERY += [
    pytest.param(*case, marks=pytest.mark.exhaustive)
    for case in itertools.product((*NAMES, "preconditioned_deltanet"), (1, 16, 64), (True, False))
    if case not in EVERY
]


def streams(rule, B=1, T=20, H=2, D=4):
    inputs = random_inputs(rule, B=B, T=T, H=H, dk=D, dv=3, spans=SPANS)
    if not rule.algorithm.data_dependent:  # the published rule has no rate
        inputs.gates["lr"][:] = 1.0
    return inputs


def close(got, want, tolerance=1e-10):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def part(inputs, start, stop):
    W0, *others = inputs
    return (W0, *jax.tree.map(lambda x: x[:, start:stop], others))


@pytest.mark.parametrize(("name", "chunk", "exact"), EVERY)
def test_documents_and_cuts(name, chunk, exact):
    """Packed documents, masked tokens and a cut inside a chunk, against each document alone."""
    rule = miras.preset(name).rule
    length = chunk // 2 + 3
    T = 3 * length
    inputs = streams(rule, T=T)
    segments = np.repeat([0, 1, 2], length)[None]
    how = {"chunk": chunk, "exact": exact}
    got, end = miras.scan(rule, *inputs, segment_ids=segments, **how)
    starts = (0, length, 2 * length)
    alone = [miras.scan(rule, *part(inputs, at, at + length), **how) for at in starts]
    close(got, np.concatenate([y for y, _ in alone], axis=1))
    for name, buffer in (end.carried or {}).items():
        close(buffer, alone[-1][1].carried[name])
    if exact:
        published = getattr(oracle_keys, rule_name(rule))
        close(alone[1][0], published(*part(inputs, length, 2 * length), chunk)[0])

    W0, q, k, v, gates = inputs
    mask = np.random.default_rng(0).uniform(size=(1, T)) < 0.7
    cut = 2 * length - 2
    mask[0, [0, cut - 1]] = False
    kept = jax.tree.map(lambda x: x[:, mask[0]], (q, k, v, gates))
    want, whole = miras.scan(rule, W0, *kept, **how)
    head = jax.tree.map(lambda x: x[:, :cut], (q, k, v, gates))
    tail = jax.tree.map(lambda x: x[:, cut:], (q, k, v, gates))
    _, state = miras.scan(rule, W0, *head, mask=mask[:, :cut], **how)
    second, end = miras.scan(rule, W0, *tail, mask=mask[:, cut:], state=state, **how)
    before = mask[0, :cut].sum()
    close(second[:, mask[0, cut:]], want[:, before:])
    for name, buffer in (end.carried or {}).items():
        close(buffer, whole.carried[name])


def rule_name(rule):
    """The preset of a rule."""
    names = (*NAMES, "preconditioned_deltanet")
    return next(name for name in names if miras.preset(name).rule == rule)


@pytest.mark.parametrize(
    "name",
    [pytest.param("gated_deltanet2", marks=pytest.mark.exhaustive), "preconditioned_kda", "mamba3"],
)
def test_gradients_are_finite_differences(name):
    """By every array, along a random direction, through two chunks and a cut."""
    rule = miras.preset(name).rule
    inputs = jax.tree.map(jnp.asarray, streams(rule, T=7, H=1))
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(1, 7, 1, 3))
    way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), inputs)

    @jax.jit
    def value(inputs):
        y, state = miras.scan(rule, *part(inputs, 0, 5), exact=True, chunk=4)
        more, _ = miras.scan(rule, *part(inputs, 5, 7), exact=True, chunk=4, state=state)
        return jnp.sum(jnp.concatenate([y, more], axis=1) * weight)

    slopes = jax.jit(jax.grad(value))(inputs)
    h = 1e-5
    for i, field in enumerate(inputs._fields):
        some = jax.tree.map(jnp.zeros_like, inputs)._replace(**{field: way[i]})
        high, low = (jax.tree.map(lambda x, d, by=by: x + by * d, inputs, some) for by in (h, -h))
        slope = sum(jnp.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (slopes[i], way[i]))))
        assert abs(slope) > 1e-3, field
        close(slope, (value(high) - value(low)) / (2 * h), 1e-7)


@pytest.mark.parametrize("exact", [True, False])
def test_equal_gates_are_kda(exact):
    """b = w = beta."""
    rule, kda = miras.preset("gated_deltanet2").rule, miras.preset("kda").rule
    W0, q, k, v, gates = streams(kda)
    beta = gates["lr"][..., None]
    own = {"erase": beta * np.ones_like(k), "write": beta * np.ones_like(v)}
    own |= {"lr": np.ones_like(gates["lr"]), "log_decay": gates["log_decay"]}
    got, _ = miras.scan(rule, W0, q, k, v, own, chunk=8, exact=exact)
    want, _ = miras.scan(kda, W0, q, k, v, gates, chunk=8, exact=exact)
    close(got, want)


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda"])
def test_a_bound_of_one_preconditions_nothing(name):
    rule = miras.override(miras.preset(f"preconditioned_{name}").rule, "algorithm.bound=1")
    plain = miras.preset(name).rule
    inputs = streams(rule)
    gates = {gate.name: inputs.gates[gate.name] for gate in plain.gates}
    got, _ = miras.scan(rule, *inputs, chunk=8, exact=True)
    want, _ = miras.scan(plain, *inputs[:4], gates, chunk=8, exact=True)
    close(got, want)


@pytest.mark.parametrize("chunk", [1, 16])
def test_a_trapezoid_of_one_is_mamba2(chunk):
    """lambda = 1: nothing of the token before."""
    rule, base = miras.preset("mamba3").rule, miras.preset("mamba2").rule
    inputs = streams(rule)
    inputs.gates["trapezoid"] = np.ones_like(inputs.gates["lr"])
    gates = {gate.name: inputs.gates[gate.name] for gate in base.gates}
    got, _ = miras.scan(rule, *inputs, chunk=chunk)
    want, _ = miras.scan(base, *inputs[:4], gates, chunk=chunk)
    close(got, want)


def test_buffers_of_a_chunk_are_the_recursion():
    """Sums with and without decays, and the token before, under a mask."""
    rng = np.random.default_rng(0)
    write = np.array([0.0, 1, 1, 0, 1, 0])
    x, start = rng.normal(size=(6, 3)), rng.normal(size=3)
    log_decay = -rng.uniform(size=6)
    buffers = ChunkBuffers(dict.fromkeys(("m", "s", "k"), jnp.asarray(start)), jnp.asarray(write))
    got = {
        "m": buffers.decayed_sum("m", jnp.asarray(log_decay), jnp.asarray(x)),
        "s": buffers.decayed_sum("s", None, jnp.asarray(x)),
        "k": buffers.previous("k", jnp.asarray(x)),
    }
    m, s, last = start, start, start
    for t in range(6):
        if write[t]:
            close(got["k"][t], last)
            m, s, last = np.exp(log_decay[t]) * m + x[t], s + x[t], x[t]
        close(got["m"][t], m)
        close(got["s"][t], s)
    for name, want in {"m": m, "s": s, "k": last}.items():
        close(buffers.after[name], want)


def test_a_layer_learns_one_center_per_head():
    """The same for all tokens, without a kernel."""
    rule = miras.preset("preconditioned_kda").rule
    made = GateProjections(rule, 8, 2, rank=2, terms=None, rngs=nnx.Rngs(0))
    gates = made(jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 8))))
    np.testing.assert_allclose(gates["center"], np.full((1, 3, 2), -0.2), rtol=1e-6)
    assert "center" not in made.kernels
    assert made.biases["center"].shape == (2,)
