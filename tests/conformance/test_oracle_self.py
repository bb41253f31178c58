"""The oracle held against the papers' own forms, finite differences and cases done by hand.

Nothing of the package is tested here: these tests are the reason to believe `oracle.py`.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tests.conformance import oracle, oracle_bias, oracle_memory, oracle_presets
from tests.conformance.oracle_retention import link, unlink

B, T, H, D = 2, 7, 2, 4
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def _mlp(depth, activation="gelu", residual=False, norm=None):
    kind = {"kind": "mlp", "depth": depth, "expansion": 4, "activation": activation}
    return {**kind, "residual": residual, "norm": norm, "eps": 1e-6}


MEMORIES = {
    "vector": {"kind": "vector"},
    "matrix": {"kind": "matrix"},
    "mlp1": _mlp(1, residual=True, norm="layer"),
    **{f"mlp2-{a}": _mlp(2, a) for a in ("relu", "gelu", "gelu_exact", "silu", "tanh")},
    "mlp2-layer": _mlp(2, residual=True, norm="layer"),
    "mlp3-rms": _mlp(3, "silu", norm="rms"),
    "mlp4": _mlp(4, "identity", residual=True),
    "mlp2-bias": {**_mlp(2, residual=True, norm="layer"), "biases": True},
    "matrix-bias": {"kind": "matrix", "biases": True},
}
SMOOTH = {"smooth": True, "sharpness": 3.0, "eps": 1e-6}
BIASES = {
    "dot": {"kind": "dot"},
    "l2": {"kind": "l2"},
    "lp3": {"kind": "lp", "p": 3.0, "smooth": True, "sharpness": 3.0},
    "lp4": {"kind": "lp", "p": 4.0, "smooth": False},
    "lp1.5": {"kind": "lp", "p": 1.5, "smooth": False},
    "l1": {"kind": "l1", "smooth": False},
    "l1-smooth": {"kind": "l1", **SMOOTH},
    "lp1.5-smooth": {"kind": "lp", "p": 1.5, **SMOOTH},
    "huber-coordinate": {"kind": "huber", "variant": "coordinate"},
    "huber-norm": {"kind": "huber", "variant": "norm"},
    "robust": {"kind": "robust", "radius": 0.3},
}
LINKS = {
    **{
        f"lq{q}-{form}": {"kind": "lq", "q": q, "form": form, "link_every": "token"}
        for q in (1.5, 2.0, 2.5, 3.0, 4.0)
        for form in ("printed", "mirror")
    },
    **{
        f"kl-axis{a}": {"kind": "kl", "scale": 2.5, "axis": a, "link_every": "token"}
        for a in (0, 1)
    },
}


def _weights(memory, rng, heads=()):
    if memory["kind"] == "vector":
        return {"w1": rng.normal(size=(*heads, D))}
    widths = [D] + [6] * (memory.get("depth", 1) - 1) + [D]
    weights = {
        f"w{i + 1}": rng.normal(size=(*heads, n, m)) / math.sqrt(n)
        for i, (n, m) in enumerate(itertools.pairwise(widths))
    }
    if memory.get("biases"):
        weights |= {f"b{i}": rng.normal(size=(*heads, m)) for i, m in enumerate(widths[1:], 1)}
    if memory.get("affine"):
        weights |= {name: rng.normal(size=(*heads, D)) for name in ("scale", "shift")}
    return weights


def _loss(bias, pred, v, threshold):
    """The loss of one token whose gradient `oracle_bias.residual` claims to be."""
    kind, r = bias["kind"], pred - v
    length = np.linalg.norm(r)
    if kind == "dot":
        return -pred @ v
    if kind == "l2":
        return 0.5 * r @ r
    if kind in ("lp", "l1"):
        p = 1.0 if kind == "l1" else bias["p"]
        if p >= 2 or not bias["smooth"]:
            return np.sum(np.abs(r) ** p) / p
        s = 0.5 * np.abs(r)[:, None] * (NODES + 1)  # the integral of the residual from 0 to |r|
        smooth = np.tanh(bias["sharpness"] * s) * (s**2 + bias["eps"]) ** ((p - 1) / 2)
        return np.sum(0.5 * np.abs(r) * (smooth @ WEIGHTS))
    if kind == "robust":
        return 0.5 * (length + bias["radius"]) ** 2
    x = np.abs(r) if bias["variant"] == "coordinate" else length
    return np.sum(np.where(x <= threshold, 0.5 * x**2, threshold * x - 0.5 * threshold**2))


def _finite_difference(f, x, h=1e-5):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        grad[i] = (f(up) - f(down)) / (2 * h)
    return grad


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.sample(0.35)
def test_gradients_are_those_of_the_loss(memory, bias, seed):
    rng = np.random.default_rng(seed)
    threshold = [0.4, 10.0][seed]  # both branches of huber
    W, x, v = _weights(memory, rng), rng.normal(size=D), rng.normal(size=D)
    r = oracle_bias.residual(bias, oracle_memory.predict(memory, W, x), v, threshold)
    grads = oracle_memory.memory_vjp(memory, W, x, r)
    assert sorted(grads) == sorted(W)
    for name, w in W.items():
        wanted = _finite_difference(
            lambda w, name=name: _loss(
                bias, oracle_memory.predict(memory, {**W, name: w}, x), v, threshold
            ),
            w,
        )
        # central differences: h^2 f''' / 6 + eps f / h is about 1e-10, f''' reaching 1e2 or so
        np.testing.assert_allclose(grads[name], wanted, rtol=1e-6, atol=1e-7)


def test_residuals_by_hand():
    v = np.array([1.0, -2.0])
    pred = v + np.array([3.0, -4.0])  # r = (3, -4), length 5

    def residual(threshold=math.nan, **bias):
        return oracle_bias.residual(bias, pred, v, threshold).tolist()

    assert residual(kind="dot") == [-1.0, 2.0]
    assert residual(kind="lp", p=3) == [9.0, -16.0]
    assert residual(kind="lp", p=1.5, smooth=False) == [math.sqrt(3), -2.0]
    assert residual(kind="l1", smooth=False) == [1.0, -1.0]
    assert residual(2.0, kind="huber", variant="coordinate") == [2.0, -2.0]
    assert residual(2.5, kind="huber", variant="norm") == [1.5, -2.0]
    assert residual(5.0, kind="huber", variant="mixture") == [3.0, -4.0]
    assert residual(4.9, kind="huber", variant="mixture") == [4.9, -4.9]
    assert residual(kind="robust", radius=5.0) == [6.0, -8.0]
    for bias in (*BIASES.values(), {"kind": "huber", "variant": "mixture"}):
        at_zero = oracle_bias.residual(bias, v, v, 1.0)
        np.testing.assert_array_equal(at_zero, -v if bias["kind"] == "dot" else 0)


@pytest.mark.parametrize("retention", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("shape", [(5,), (3, 4)])
def test_link_and_unlink_are_inverse(retention, shape):
    rng = np.random.default_rng(1)
    W = rng.normal(size=shape)
    if retention["kind"] == "kl":
        W = link(retention, W)
        axis = retention["axis"] if len(shape) == 2 else 0
        np.testing.assert_allclose(W.sum(axis=axis), retention["scale"], rtol=1e-14)
    elif retention["form"] == "printed" and retention["q"] == 3.0:
        W = W / np.sum(np.abs(W) ** 3) ** (1 / 3)  # the image of the link: ||W||_3 = 1
    np.testing.assert_allclose(link(retention, unlink(retention, W)), W, rtol=1e-12)


def test_links_by_hand():
    def printed(q, x):
        return link({"kind": "lq", "q": q, "form": "printed"}, np.array(x)).tolist()

    def mirror(q, x):
        return link({"kind": "lq", "q": q, "form": "mirror"}, np.array(x)).tolist()

    assert printed(4, [2.0, 0.0]) == [0.5, 0.0]  # degree -1
    assert printed(2, [3.0, -4.0]) == [3.0, -4.0]
    assert mirror(2, [3.0, -4.0]) == [3.0, -4.0]
    np.testing.assert_allclose(mirror(3, [1.0, -2.0]), np.array([1, -4]) / 9 ** (1 / 3))
    kl = {"kind": "kl", "scale": 6.0, "axis": 0}
    by_columns = link(kl, np.log([[1.0, 1.0], [2.0, 1.0]]))
    np.testing.assert_allclose(by_columns, [[2.0, 3.0], [4.0, 3.0]])
    by_rows = link({**kl, "axis": 1}, np.log([[1.0, 1.0], [2.0, 1.0]]))
    np.testing.assert_allclose(by_rows, [[3.0, 3.0], [4.0, 2.0]])


def _inputs(name, rng):
    parts = oracle_presets.PARTS[name]
    W0 = _weights(parts["memory"], rng, (H,))
    if parts["retention"]["kind"] == "kl":
        W0 = {n: np.exp(w) / np.exp(w).sum(axis=-2, keepdims=True) for n, w in W0.items()}
    q, k, v = rng.normal(size=(3, B, T, H, D))
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    gates = {
        "lr": rng.uniform(0.02, 0.2, size=(B, T, H)),
        "log_decay": np.log(rng.uniform(0.8, 1.0, size=(B, T, H))),
        "log_momentum": np.log(rng.uniform(0.3, 0.9, size=(B, T, H))),
        "threshold": rng.uniform(1.5, 3.0, size=(B, T, H)),
    }
    if name == "moneta":  # the printed link has degree -1: it turns large steps into small weights
        gates["lr"] = 0.05 * gates["lr"]
    if name == "retnet":  # one constant per head
        gates["log_decay"] = np.broadcast_to(gates["log_decay"][:1, :1], (B, T, H))
    return W0, q, k, v, gates


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16])
@pytest.mark.parametrize(
    ("name", "choice"),
    [(name, {}) for name in oracle_presets.PARTS]
    + [(name, {"link_every": "chunk"}) for name in ("moneta", "memora")],
)
def test_run_equals_the_published_recurrence(name, choice, chunk):
    parts: dict[str, Any] = dict(oracle_presets.PARTS[name])
    W0, q, k, v, gates = _inputs(name, np.random.default_rng(2))
    y, W = getattr(oracle_presets, name)(W0, q, k, v, gates, chunk, **choice)
    retention = parts["retention"] = {**parts["retention"], **choice}
    got, final = oracle.run(**parts, W0=W0, q=q, k=k, v=v, gates=gates, chunk=chunk)
    np.testing.assert_allclose(got, y, rtol=1e-10, atol=1e-11)
    for n, w in W.items():
        for b, h in np.ndindex(B, H):
            linked_A = link(retention, final["A"][n][b, h])
            np.testing.assert_allclose(linked_A, w[b, h], rtol=1e-10, atol=1e-11)


def _scalar(k, v, chunk=1, lr=0.5, alpha=1.0, mu=None, bias="l2", w=0.0, retention=None, **more):
    """One 1x1 matrix memory, queries 1: y_t is the memory after token t."""
    column = np.ones((1, len(k), 1))
    gates = {"lr": lr * column, "log_decay": math.log(alpha) * column}
    algorithm = {"kind": "gd"} if mu is None else {"kind": "momentum"}
    if mu is not None:
        gates["log_momentum"] = math.log(mu) * column
    y, final = oracle.run(
        memory={"kind": "matrix"}, bias={"kind": bias}, retention=retention or {"kind": "l2"},
        algorithm=algorithm, W0={"w1": np.full((1, 1, 1), w)}, q=column[..., None],
        k=np.array(k, float).reshape(1, -1, 1, 1), v=np.array(v, float).reshape(1, -1, 1, 1),
        gates=gates, chunk=chunk, **more,
    )  # fmt: skip
    return y.ravel().tolist(), final["S"]["w1"].item()


def test_scalar_memories_by_hand():
    assert _scalar([1, 1, 1], [1, 1, 1], lr=1.0, bias="dot")[0] == [1, 2, 3]
    assert _scalar([1, 1, 1], [1, 1, 1])[0] == [0.5, 0.75, 0.875]
    # one snapshot: every token of the chunk sees the error 1 - 0, then 1 - 1
    assert _scalar([1, 1, 1], [1, 1, 1], chunk=2)[0] == [0.5, 1.0, 1.0]
    # 1 -> 0.5 - 0.5 (1 - 1) against 0.5 - 0.5 (0.5 - 1)
    assert _scalar([1], [1], w=1.0, alpha=0.5)[0] == [0.5]
    assert _scalar([1], [1], w=1.0, alpha=0.5, order="decay_first")[0] == [0.75]
    # chunk of 2, decay first: errors 1 - 0.5 for both, W = 0.5 + 0.25 then 0.375 + 0.25
    assert _scalar([1, 1], [1, 1], 2, w=1.0, alpha=0.5, order="decay_first")[0] == [0.75, 0.625]
    # S: 1, 0.5 + 1, 0.75 + 1 under dot
    y, S = _scalar([1, 1, 1], [1, 1, 1], lr=1.0, bias="dot", mu=0.5)
    assert (y, S) == ([1, 2.5, 4.25], 1.75)


def test_mask_and_segments_by_hand():
    mask = np.array([[True, False, True, True]])
    assert _scalar([1] * 4, [1, 9, 1, 1], alpha=0.5, mask=mask)[0] == [0.5, 0, 0.5, 0.5]
    # a masked token takes no place: the second chunk starts at token 3, from 1
    assert _scalar([1] * 4, [1, 9, 1, 1], chunk=2, mask=mask)[0] == [0.5, 0, 1.0, 1.0]
    # nor does it begin a segment
    segments = np.array([[4, 7, 4, 4]])
    labels = {"mask": mask, "segment_ids": segments}
    assert _scalar([1] * 4, [1, 9, 1, 1], chunk=2, **labels)[0] == [0.5, 0, 1.0, 1.0]
    # the reset renews the snapshot, and chunk edges are counted from it
    segments = np.array([[4, 7, 7, 7]])
    assert _scalar([1] * 4, [1] * 4, chunk=2, segment_ids=segments)[0] == [0.5, 0.5, 1.0, 1.0]
    segments = np.array([[0, 1]])
    y, S = _scalar([1, 1], [1, 1], lr=1.0, bias="dot", mu=0.5, segment_ids=segments)
    assert (y, S) == ([1, 1], 1)


def test_link_once_per_chunk_by_hand():
    inverse = {"kind": "lq", "q": 4.0, "form": "printed", "link_every": "chunk"}  # W = 1 / A
    step: dict[str, Any] = {"lr": 1.0, "w": 2.0, "bias": "dot", "retention": inverse}
    # A: 0.5, 1, 2, 4; the first read is 2 + 0.5, the second goes through the link
    assert _scalar([1] * 3, [0.5, 1, 2], chunk=2, **step)[0] == [2.5, 0.5, 2.5]
    # the link fires at the second token that is there
    mask = np.array([[True, False, True]])
    assert _scalar([1] * 3, [0.5, 9, 1], chunk=2, mask=mask, **step)[0] == [2.5, 0, 0.5]
    # every read through the link, whatever the chunk
    step["retention"] = {**inverse, "link_every": "token"}
    assert _scalar([1] * 3, [0.5, 1, 2], chunk=2, **step)[0] == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("name", oracle_presets.PARTS)
def test_segments_are_separate_sequences(name):
    W0, q, k, v, gates = _inputs(name, np.random.default_rng(3))
    parts = {**oracle_presets.PARTS[name], "W0": W0, "chunk": 3}
    segments = np.array([[0, 0, 0, 0, 1, 1, 1], [5, 3, 3, 3, 3, 3, 5]])
    y, _ = oracle.run(**parts, q=q, k=k, v=v, gates=gates, segment_ids=segments)
    for b, cuts in enumerate(([0, 4, 7], [0, 1, 6, 7])):
        for lo, hi in itertools.pairwise(cuts):
            part = np.s_[b : b + 1, lo:hi]
            own = {n: g[part] for n, g in gates.items()}
            alone, _ = oracle.run(**parts, q=q[part], k=k[part], v=v[part], gates=own)
            np.testing.assert_array_equal(y[part], alone)


def test_decay_first_without_momentum_is_gated_deltanet():
    W0, q, k, v, gates = _inputs("deltanet", np.random.default_rng(4))
    parts = {**oracle_presets.PARTS["deltanet"], "retention": {"kind": "l2"}}
    y, _ = oracle.run(**parts, W0=W0, q=q, k=k, v=v, gates=gates, chunk=1, order="decay_first")
    for b, h in np.ndindex(B, H):
        W = W0["w1"][h]
        for t in range(T):
            a, eta = np.exp(gates["log_decay"][b, t, h]), gates["lr"][b, t, h]
            key = k[b, t, h][:, None]
            W = a * (np.eye(D) - eta * key @ key.T) @ W + eta * key @ v[b, t, h][None]
            np.testing.assert_allclose(y[b, t, h], q[b, t, h] @ W, rtol=1e-12, atol=1e-12)
