"""The oracle's wider parts against finite differences, optimality conditions and hand-made cases.

Nothing of the package is tested here: these tests are the reason to believe the oracle's memories,
retentions and algorithms beyond those that `test_oracle_self.py` looks at.
"""

import math
from typing import Any

import numpy as np
import pytest

from tests.conformance import oracle, oracle_algorithms, oracle_atlas, oracle_linear
from tests.conformance.oracle_algorithms import Token
from tests.conformance.oracle_bias import Association, gradient
from tests.conformance.oracle_memory import features, memory_vjp, predict
from tests.conformance.oracle_retention import link, prox, unlink

D, HIDDEN = 4, 3
SHAPES = {
    "mlp": {"w1": (D, HIDDEN), "w2": (HIDDEN, D), "scale": (D,), "shift": (D,)},
    "gated_mlp": {"w1": (D, HIDDEN), "w2": (HIDDEN, D), "w3": (D, HIDDEN)},
    "slots": {"w1": (D, HIDDEN), "w2": (HIDDEN, D)},
    "elu": {"w1": (D, D)},
    "relu2": {"w1": (D, D)},
    "polynomial": {"w1": (15, D)},
    "taylor": {"w1": (21, D), "taylor": (3,)},
}
MEMORIES: dict[str, dict] = {
    "mlp": {"kind": "mlp", "depth": 2, "activation": "silu", "residual": True, "affine": True},
    "gated_mlp": {"kind": "gated_mlp", "residual": True},
    "slots": {"kind": "slots", "write": "gradient", "scale": 0.7},
    **{
        name: {"kind": "features", "map": name, "degree": 2, "inner": {"kind": "matrix"}}
        for name in ("elu", "relu2", "polynomial", "taylor")
    },
}


@pytest.mark.parametrize("norm", [None, "layer", "rms"])
@pytest.mark.parametrize("name", MEMORIES)
def test_gradients_are_those_of_the_prediction(name, norm):
    rng = np.random.default_rng(0)
    memory = MEMORIES[name] | {"norm": norm, "eps": 1e-6}
    W = {n: rng.normal(size=shape) for n, shape in SHAPES[name].items()}
    x, dpred, h = rng.normal(size=D), rng.normal(size=D), 1e-6
    grads = memory_vjp(memory, W, x, dpred)
    assert sorted(grads) == sorted(n for n in W if n.startswith("w"))
    for n, g in grads.items():
        move = rng.normal(size=g.shape)
        up, down = (predict(memory, W | {n: W[n] + s * h * move}, x) for s in (1, -1))
        np.testing.assert_allclose(np.sum(g * move), dpred @ (up - down) / (2 * h), rtol=1e-6)


def test_features_by_hand():
    def phi(x, **memory):
        return features(memory, np.array(x)).tolist()

    assert phi([2.0, 0.0], map="elu") == [3.0, 1.0]
    assert phi([2.0, -3.0], map="relu2") == [4.0, 0.0]
    assert phi([2.0, 3.0], map="polynomial", degree=2) == [1, 2, 3, 4, 6, 9]
    q, k = np.random.default_rng(0).normal(size=(2, D))
    taylor = {"map": "taylor", "degree": 3}
    series = sum((q @ k) ** i / math.factorial(i) for i in range(4))
    np.testing.assert_allclose(features(taylor, q) @ features(taylor, k), series)


def test_a_slots_own_write():
    k, v, phi, A = np.array([1.0, 2.0]), np.array([3.0]), np.array([0.5, 0.25]), np.zeros((2, 2))
    term = Association(k, v, None, 1.0)
    W = {"w1": A, "w2": A[:, :1]}
    for write, gates in {"gate": {"slot": phi}, "tied": {"log_decay": np.log1p(-phi)}}.items():
        g = gradient({"kind": "slots", "write": write}, {"kind": "dot"}, W, term, gates)
        np.testing.assert_allclose(g["w1"], [[-0.5, -0.25], [-1.0, -0.5]])
        np.testing.assert_allclose(g["w2"], [[-1.5], [-0.75]])


LINKS: dict[str, dict] = {
    "sigmoid": {"kind": "bregman", "potential": "sigmoid"},
    "tanh": {"kind": "bregman", "potential": "tanh"},
    "hard": {"kind": "elastic_net", "form": "ftrl", "gamma": 0.3, "threshold": "hard"},
    "smooth": {"kind": "elastic_net", "form": "ftrl", "gamma": 0.3, "threshold": "smooth"},
}


@pytest.mark.parametrize("name", LINKS)
def test_link_and_unlink_are_inverse(name):
    W = np.random.default_rng(1).uniform(-0.95, 0.95, size=(3, 4))
    W = np.abs(W) if name == "sigmoid" else W
    np.testing.assert_allclose(link(LINKS[name], unlink(LINKS[name], W)), W, rtol=1e-12)


def test_links_by_hand():
    assert link(LINKS["sigmoid"], np.array([0.0, math.log(3)])).round(12).tolist() == [0.5, 0.75]
    assert link(LINKS["hard"], np.array([1.0, -0.2, -0.5])).tolist() == [0.7, 0.0, -0.2]
    np.testing.assert_allclose(link(LINKS["smooth"], np.array([0.3, -0.3])), [0.15, -0.15])


GENERATORS = {
    "kl": lambda t: t * np.log(t) - t + 1,
    "chi2": lambda t: (t - 1) ** 2,
    "hellinger": lambda t: (np.sqrt(t) - 1) ** 2,
}


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("axis", [0, 1])
def test_f_divergence_step_is_the_minimiser(generator, axis):
    """No move within the simplex lowers <W, -U> + sum old f(W / old)."""
    rng = np.random.default_rng(2)
    old = rng.uniform(0.2, 1, size=(4, 5))
    old *= 1.5 / old.sum(axis=axis, keepdims=True)
    U, f = 0.3 * rng.normal(size=old.shape), GENERATORS[generator]
    retention = {"kind": "f_divergence", "generator": generator, "scale": 1.5, "axis": axis}
    W = prox(retention, old + U, old, {})
    np.testing.assert_allclose(W.sum(axis=axis), 1.5, rtol=1e-12)
    assert (W > 0).all()
    move = rng.normal(size=(20, *old.shape))
    move -= move.mean(axis=axis + 1, keepdims=True)
    for small in (1e-3, -1e-3):
        moved = W + small * move
        cost = np.sum(-moved * U + old * f(moved / old), axis=(-2, -1))
        assert (cost > np.sum(-W * U + old * f(W / old))).all()


def test_elastic_net_step_is_the_minimiser():
    """<W, g> + ||W - old||^2 / (2 eta) + ||W||^2 / (2 c2) + ||W||_1 / c1, on a grid."""
    eta, g, c1, c2 = 0.3, np.array([0.5, -0.1, 2.0]), 2.0, 5.0
    old = np.array([0.8, 0.05, -0.3])
    retention: dict[str, Any] = {"kind": "elastic_net", "form": "proximal", "c1": c1, "c2": c2}
    y, final = oracle.run(
        memory={"kind": "vector"}, bias={"kind": "dot"}, algorithm={"kind": "gd"}, chunk=1,
        retention=retention | {"threshold": "hard", "link_every": "token"}, W0={"w1": old[None]},
        q=np.ones((1, 1, 1, 3)), k=np.ones((1, 1, 1, 3)), v=-g.reshape(1, 1, 1, 3),
        gates={"lr": np.full((1, 1, 1), eta)},
    )  # fmt: skip
    w = np.linspace(-2, 2, 400_001)[:, None]
    cost = w * g + (w - old) ** 2 / (2 * eta) + w**2 / (2 * c2) + np.abs(w) / c1
    np.testing.assert_allclose(y[0, 0, 0], w[cost.argmin(0), 0], atol=1e-5)
    assert final["A"]["w1"].ravel()[1] == 0


def test_projections_by_hand():
    new, old = np.array([[3.0, 0.0], [4.0, 2.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    assert prox({"kind": "projection", "radius": 6.0}, new, old, {}).tolist() == new.tolist()
    ball = prox({"kind": "projection", "radius": 1.0}, new, old, {})
    np.testing.assert_allclose(ball, new / math.sqrt(29))
    rows = {axis: prox({"kind": "rows", "axis": axis}, new, old, {}) for axis in (0, 1)}
    np.testing.assert_allclose(rows[0], [[0.6, 0.0], [0.8, 1.0]])
    np.testing.assert_allclose(rows[1], new / [[3.0], [math.sqrt(20)]])


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_newton_schulz_acts_on_singular_values(shape):
    S = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(
        oracle_algorithms.newton_schulz(S, 4), oracle_atlas.newton_schulz(S, 4), atol=1e-13
    )


@pytest.mark.parametrize("rate", [0.7, np.array([[0.3, 0.9]]), np.array([[0.3], [0.9], [0.2]])])
def test_the_implicit_step_solves_its_equation(rate):
    """W = W_0 - eta k^T (k W - v), with the new W on both sides."""
    rng = np.random.default_rng(0)
    W0, k, v = rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=2)
    own = oracle_algorithms.implicit_rate(rate, k)
    W = W0 - own * np.outer(k, k @ W0 - v)
    np.testing.assert_allclose(W, W0 - rate * np.outer(k, k @ W - v))


def test_steps_by_hand():
    def run(G, S=0.0, V=0.0, mu=0.5, eta=0.1, **algorithm):
        gates: dict = {"log_momentum": np.log(mu)} if mu else {}
        token = Token((Association(np.ones(1), np.ones(1), None, eta),), gates)
        x = [np.array([z]) for z in (S, V, G)]
        return [float(z[0]) for z in oracle_algorithms.step(algorithm, *x, token)]

    close = np.testing.assert_allclose
    close(run(2.0, kind="gd"), [-2, 0, -2])
    close(run(2.0, S=1.0, kind="momentum"), [-1.5, 0, -1.5])
    close(run(2.0, S=1.0, kind="nesterov"), [-1.5, 0, -2.75])
    close(run(2.0, S=1.0, kind="omega"), [0.3, 0, 0.3])
    own: dict[str, Any] = {"every": "token", "lr_at": "update", "momentum": 0.5}
    close(run(2.0, S=-6.0, kind="muon", steps=5, **own), [-1, 0, 0.1], rtol=1e-6)
    sign: dict[str, Any] = {"kind": "adaptive", "variant": "sign", "sharpness": None} | own
    close(run(2.0, S=-6.0, **sign), [-1, 0, 0.1])
    close(run(2.0, S=-6.0, **sign | {"sharpness": 2.0}), [-1, 0, 0.1 * math.tanh(2)])
    rms = {"kind": "adaptive", "variant": "rms", "beta2": 0.75, "eps": 1.0} | own
    close(run(2.0, S=-6.0, V=4.0, **rms), [-1, 4, 0.1 / 3])
    close(run(2.0, S=-6.0, **rms | {"every": "chunk"}), [-1, 0, 0])


def _scalar(n, chunk=1, **more):
    """One 1x1 matrix memory under dot with k = v = q = 1: y_t counts what was written."""
    one = np.ones((1, n, 1, 1))
    parts: dict[str, Any] = {"memory": {"kind": "matrix"}, "bias": {"kind": "dot"}}
    parts |= {"retention": {"kind": "none"}, "algorithm": {"kind": "gd"}}
    gates = {"lr": np.ones((1, n, 1)), "weight": np.ones((1, n, 1))}
    streams = {"q": one, "k": one, "v": one, "gates": gates, "W0": {"w1": np.zeros((1, 1, 1))}}
    return oracle.run(**(parts | streams | more), chunk=chunk)[0].ravel().tolist()


def test_windows_chunks_and_reads_by_hand():
    omega = {"kind": "omega", "window": 2, "momentum": None}
    assert _scalar(4, algorithm=omega) == [1, 3, 5, 7]
    mask, ids = np.array([[True, False, True, True]]), np.array([[0, 0, 1, 1]])
    assert _scalar(4, algorithm=omega, mask=mask) == [1, 0, 3, 5]
    assert _scalar(4, algorithm=omega, segment_ids=ids) == [1, 3, 1, 3]
    assert _scalar(4, 2, read="snapshot") == [0, 0, 2, 2]
    sign = {"kind": "adaptive", "variant": "sign", "sharpness": None, "every": "chunk"}
    sign |= {"lr_at": "update", "window": 1, "momentum": None}
    assert _scalar(5, 2, algorithm=sign, read="snapshot") == [0, 0, 1, 1, 2]
    assert _scalar(3, algorithm={"kind": "multi_step", "steps": 2}) == [2, 4, 6]
    # l2 with rate 1/2: W halves its distance to 1 with every online step
    half = {"bias": {"kind": "l2"}} | {"gates": {"lr": np.full((1, 3, 1), 0.5)}}
    assert _scalar(3, 3, **half) == [0.5, 1.0, 1.5]
    assert _scalar(3, 3, exact=True, **half) == [0.5, 0.75, 0.875]
    assert _scalar(3, 3, refine=1, **half) == [0.5, 0.75, 0.75]
    assert _scalar(3, 3, refine=2, **half) == [0.5, 0.75, 0.875]
    newton = {"kind": "newton", "ridge": 1.0}
    assert _scalar(3, 3, algorithm=newton, **half) == [1 / 3, 0.5, 0.6]


def test_deltaproduct_and_rwkv7_in_their_own_forms():
    rng = np.random.default_rng(7)
    q, a, b = rng.normal(size=(3, 2, 9, 2, D))
    v, W0 = rng.normal(size=(2, 9, 2, 2, 3)), {"w1": rng.normal(size=(2, D, 3))}
    keys = np.stack([a, b], 3) / np.linalg.norm(np.stack([a, b], 3), axis=-1, keepdims=True)
    lr, decay = rng.uniform(0.1, 0.9, size=(2, 9, 2, 2)), -0.3 * rng.uniform(size=(2, 9, 2))
    parts: dict[str, Any] = {"memory": {"kind": "matrix"}, "bias": {"kind": "l2"}, "W0": W0}
    parts |= {"q": q, "k": keys, "v": v, "order": "decay_first", "chunk": 4, "exact": True}
    want, _ = oracle_linear.deltaproduct(W0, q, keys, v, {"lr": lr, "log_decay": decay}, 4)
    got, _ = oracle.run(
        **parts, retention={"kind": "l2"}, algorithm={"kind": "multi_step", "steps": 2},
        gates={"lr": lr, "log_decay": decay},
    )  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)

    rows, rate = -0.5 * rng.uniform(size=q.shape), rng.uniform(0, 1, size=q.shape)
    kap, values = keys[..., 0, :], v[..., 0, :]
    want, _ = oracle_linear.rwkv7(W0, q, kap, rate, b, values, rows)
    zero = np.zeros_like(values)
    parts |= {"k": np.stack([kap, 0 * kap], 3), "v": np.stack([zero, values], 3)}
    got, _ = oracle.run(
        **parts | {"order": "learn_first"}, retention={"kind": "l2", "granularity": "key"},
        algorithm={"kind": "gd"}, k_write=np.stack([rate * kap, b], 3),
        gates={"lr": np.ones_like(lr), "log_decay": rows},
    )  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
