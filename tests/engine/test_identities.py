"""Reductions: members and semantics that the mathematics says are equal, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from tests.conformance import oracle_linear
from tests.conformance.test_presets import inputs

pytestmark = pytest.mark.usefixtures("float64")
B, T, H, D = 2, 13, 2, 4
L2_CHANNEL = {"kind": "l2", "granularity": "key"}


def run(rule, streams, **options):
    W0, q, k, v, gates = streams
    names = {gate.name for gate in rule.gates}
    given = {name: gate for name, gate in gates.items() if name in names}
    options = {"chunk": 4} | options
    return miras.scan(rule, W0, q, k, v, given, **options)[0]


def same(a, b, atol=1e-12):
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def parts(memory="mlp", bias="l2", retention="l2", algorithm="gd", **rest):
    return miras.Rule(memory, bias, retention, algorithm, **rest)


EQUAL = {
    "lp with p = 2 is l2": (parts(bias={"kind": "lp", "p": 2.0}), parts()),
    "lq with q = 2 is l2, printed": (parts(retention={"kind": "lq", "q": 2.0}), parts()),
    "lq with q = 2 is l2, mirror": (
        parts(retention={"kind": "lq", "q": 2.0, "form": "mirror"}),
        parts(),
    ),
    "multi_step of one step is gd": (
        parts(algorithm={"kind": "multi_step", "steps": 1}),
        parts(),
    ),
    "omega of a window of 1 is gd": (parts(algorithm={"kind": "omega", "window": 1}), parts()),
    "omega of a window of 1 with momentum is momentum": (
        parts(algorithm={"kind": "omega", "window": 1, "momentum": 0.9}),
        parts(algorithm="momentum"),
    ),
    "projection onto a huge ball is l2": (
        parts(retention={"kind": "projection", "radius": 1e9}),
        parts(),
    ),
    "an elastic net without penalties is no retention": (
        parts(retention={"kind": "elastic_net", "c1": 1e15, "c2": 1e15}),
        parts(retention="none"),
    ),
    "f-divergence with kl is kl retention without decay": (
        parts(retention="f_divergence"),
        parts(retention={"kind": "kl", "data_dependent": False, "decay": 1.0}),
    ),
    "Titans without momentum under decay_first is Gated DeltaNet": (
        parts("matrix", algorithm={"kind": "momentum"}, order="decay_first"),
        parts("matrix", order="decay_first"),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.sample(0.3)
def test_two_rules_are_one(name):
    first, second = EQUAL[name]
    W0, q, k, v, gates = inputs(first, T)
    gates["lr"] = gates["lr"] * 0.01  # where each sweep contracts; the last is exact at any rate
    if "log_momentum" in gates and second.algorithm.keeps == ():
        gates["log_momentum"] = np.full((B, T, H), -np.inf)
    if "kl retention" in name:
        gates["log_decay"] = np.zeros((B, T, H))
    if "no retention" not in name and "log_decay" not in gates:
        gates["log_decay"] = np.random.default_rng(0).uniform(-0.3, 0, (B, T, H))
        gates["log_decay"] *= "f-divergence" not in name
    streams = W0, q, k, v, gates
    same(run(first, streams), run(second, streams), atol=1e-9)


@pytest.mark.parametrize("variant", ["coordinate", "norm", "mixture"])
def test_huber_with_a_huge_threshold_is_l2(variant):
    rule = parts(bias={"kind": "huber", "variant": variant})
    W0, q, k, v, gates = inputs(rule, T)
    gates["threshold"] = np.full((B, T, H), 1e9)
    same(run(rule, (W0, q, k, v, gates)), run(parts(), (W0, q, k, v, gates)))


@pytest.mark.parametrize("variant", ["coordinate", "mixture"])
def test_huber_with_a_tiny_threshold_is_l1_times_it(variant):
    rule = parts(bias={"kind": "huber", "variant": variant})
    W0, q, k, v, gates = inputs(rule, T)
    gates["threshold"] = np.full((B, T, H), 1e-9)
    scaled = gates | {"lr": gates["lr"] * 1e9}
    l1 = parts(bias={"kind": "l1", "smooth": False})
    same(run(rule, (W0, q, k, v, scaled)), run(l1, (W0, q, k, v, gates)), atol=1e-9)


def test_titans_without_momentum_is_gated_deltanet_only_under_decay_first():
    rule = parts("matrix", algorithm="momentum", order="decay_first")
    W0, q, k, v, gates = inputs(rule, T)
    gates["log_momentum"] = np.full((B, T, H), -np.inf)
    want, _ = oracle_linear.gated_deltanet(W0, q, k, v, gates, 1)
    streams = W0, q, k, v, gates
    same(run(rule, streams, chunk=1), want, atol=1e-9)
    same(run(rule, streams, exact=True), want, atol=1e-9)
    other = miras.override(rule, "order=learn_first")
    assert np.abs(run(other, streams, chunk=1) - want).max() > 1e-3


def test_gated_deltanet_with_a_gate_of_one_is_deltanet():
    rule = miras.preset("gated_deltanet").rule
    W0, q, k, v, gates = inputs(rule, T)
    gates["log_decay"] = np.zeros((B, T, H))
    want, _ = oracle_linear.deltanet_exact(W0, q, k, v, gates, 1)
    same(run(rule, (W0, q, k, v, gates), exact=True), want, atol=1e-9)


def test_ttt_theorem_1():
    """TTT-Linear from W0 = 0, lr 1, one chunk over the sequence, is linear attention."""
    streams = inputs(parts("matrix", "l2", "none"), T)
    W0, q, k, v, gates = streams
    W0, gates = {"w1": np.zeros_like(W0["w1"])}, {"lr": np.ones((B, T, H))}
    scores = np.einsum("bthi,bshi->bhts", q, k) * np.tri(T)
    want = np.einsum("bhts,bsho->btho", scores, v)
    same(run(parts("matrix", "l2", "none"), (W0, q, k, v, gates), chunk=T), want)


@pytest.mark.parametrize("memory", ["matrix", "mlp", "vector", "gated_mlp"])
@pytest.mark.parametrize("algorithm", ["gd", "momentum"])
@pytest.mark.sample(0.0)
def test_equal_channels_are_a_scalar(memory, algorithm):
    rule = parts(memory, retention=L2_CHANNEL, algorithm=algorithm)
    scalar = parts(memory, algorithm=algorithm)
    W0, q, k, v, gates = inputs(rule, T)
    gates["lr"] = gates["lr"] * 0.01  # where each sweep contracts; the last is exact at any rate
    one = gates["log_decay"][..., 0]
    equal = gates | {"log_decay": np.repeat(one[..., None], D, -1)}
    want = run(scalar, (W0, q, k, v, gates | {"log_decay": one}))
    same(run(rule, (W0, q, k, v, equal)), want, atol=1e-9)


def test_several_steps_on_a_token_are_the_token_several_times():
    rule = parts(retention="none", algorithm={"kind": "multi_step", "steps": 3})
    W0, q, k, v, gates = inputs(rule, T)
    gates["lr"] = gates["lr"] * 0.01  # where each sweep contracts; the last is exact at any rate
    thrice = [np.repeat(x, 3, axis=1) for x in (q, k, v)]
    repeated = {"lr": np.repeat(gates["lr"], 3, axis=1)}
    want = run(parts(retention="none"), (W0, *thrice, repeated), chunk=1)[:, 2::3]
    same(run(rule, (W0, q, k, v, gates), chunk=1), want, atol=1e-9)


EXACT = {
    "delta": parts("matrix"),
    "hebbian": parts("matrix", "dot"),
    "decay_first": parts("matrix", order="decay_first"),
    "momentum": parts("matrix", algorithm="momentum"),
    "momentum decay_first": parts("matrix", algorithm="momentum", order="decay_first"),
    "nesterov": parts("matrix", algorithm="nesterov"),
    "key channels": parts("matrix", retention=L2_CHANNEL),
    "both channels": parts(
        "matrix", retention={"kind": "l2", "granularity": "key_value"}, order="decay_first"
    ),
    "implicit": parts("matrix", algorithm={"kind": "implicit", "granularity": "value"}),
    "multi_step": parts("matrix", algorithm={"kind": "multi_step", "steps": 2}),
    "taylor": parts({"kind": "features", "degree": 2}),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.sample(0.2)
def test_exact_is_online_at_any_chunk(name):
    streams = inputs(EXACT[name], 37)
    want = run(EXACT[name], streams, chunk=1)
    for chunk in (2, 16, 64):
        same(run(EXACT[name], streams, chunk=chunk, exact=True), want, atol=1e-9)


@pytest.mark.parametrize("memory", ["matrix", "mlp"])
def test_refinement_ends_at_the_online_rule(memory):
    rule = parts(memory, bias="huber", algorithm="momentum")
    W0, q, k, v, gates = inputs(rule, T)
    gates["lr"] = gates["lr"] * 0.01  # where each sweep contracts; the last is exact at any rate
    streams = W0, q, k, v, gates
    want = run(rule, streams, chunk=1)
    far = [np.abs(run(rule, streams, chunk=5, refine=n) - want).max() for n in range(5)]
    assert far[0] > 10 * far[1] > 100 * far[2]
    same(run(rule, streams, chunk=5, refine=4), want, atol=1e-9)


def test_implicit_is_the_proximal_step():
    rule = parts("matrix", retention="none", algorithm="implicit")
    W0, q, k, v, gates = inputs(rule, 1)
    _, state = miras.scan(rule, W0, q, k, v, gates, chunk=1)
    W, start = np.asarray(state.A["w1"]), W0["w1"][None]
    error = np.einsum("bthi,bhio->btho", k, W) - v
    slope = W - start + np.einsum("bth,bthi,btho->bhio", gates["lr"], k, error)
    same(slope, np.zeros_like(slope))


def test_omega_over_the_whole_history_with_a_ridge_is_mesa():
    """Steps on all tokens at once, repeated until they stand still, end at least squares."""
    tokens, extra, lr, ridge = 5, 400, 0.3, 0.5
    omega = parts("matrix", retention="l2", algorithm={"kind": "omega", "window": tokens + extra})
    W0, q, k, v, _ = inputs(parts("matrix", "l2", "none", "newton"), tokens + extra)
    weight = np.zeros((B, tokens + extra, H))
    weight[:, :tokens] = np.random.default_rng(1).uniform(0.5, 1, (B, tokens, H))
    given = {
        "lr": np.full(weight.shape, lr),
        "weight": np.maximum(weight, 1e-300),  # written, but of no weight
        "log_decay": np.full(weight.shape, np.log1p(-lr * ridge)),
    }
    y, _ = miras.scan(omega, W0, q, k, v, given, chunk=1)
    mesa = parts("matrix", "l2", "none", {"kind": "newton", "ridge": ridge, "solver": "exact"})
    flat = {"w1": np.zeros_like(W0["w1"])}
    want, _ = miras.scan(mesa, flat, q, k, v, {"lr": weight}, chunk=8)
    same(y[:, -1], want[:, -1], atol=1e-9)


def test_newton_is_least_squares_from_the_initial_memory():
    rule = parts("matrix", "l2", "none", {"kind": "newton", "ridge": 0.7})
    W0, q, k, v, gates = inputs(rule, T)
    y = run(rule, (W0, q, k, v, gates), chunk=5)
    b, h = 1, 0
    root = np.sqrt(gates["lr"][b, :, h])[:, None]
    A = np.concatenate([root * k[b, :, h], np.sqrt(0.7) * np.eye(D)])
    target = np.concatenate([root * v[b, :, h], np.sqrt(0.7) * W0["w1"][h]])
    W = np.linalg.lstsq(A, target, rcond=None)[0]
    same(y[b, -1, h], q[b, -1, h] @ W, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kl", "f_divergence", "bregman"])
def test_weights_stay_in_their_range_for_100_000_tokens(kind):
    retention = {"kind": kind} | ({"potential": "sigmoid"} if kind == "bregman" else {})
    rule = parts("matrix", retention=retention)
    rng = np.random.default_rng(0)
    length = 100_000
    q = k = v = jnp.asarray(rng.normal(size=(1, length, 1, 3)), jnp.float32)
    W0 = rule.init(jax.random.key(0), 3, 3, 1)
    gates = {gate.name: jnp.full((1, length, 1), gate.constant(1)[0]) for gate in rule.gates}
    gates["lr"] = jnp.full((1, length, 1), 0.05)
    y, state = miras.scan(rule, W0, q, k, v, gates, chunk=50)
    assert np.isfinite(y).all()
    W = state.A["w1"]
    if not rule.retention.proximal:
        W = jax.vmap(rule.retention.link)(W[0])
    if kind == "bregman":
        assert ((W > 0) & (W < 1)).all()
    else:
        assert (W >= 0).all()
        np.testing.assert_allclose(np.sum(W, axis=-2), 1.0, rtol=1e-6)
