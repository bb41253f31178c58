"""oracle_atlas against least squares, plain loops, finite differences and cases done by hand.

Nothing of the package is tested here; see `test_oracle_linear_self.py` for the shared inputs.
"""

import numpy as np
import pytest

from tests.conformance import oracle_atlas, oracle_memory
from tests.conformance.test_oracle_linear_self import (
    DEEP0,
    DK,
    DV,
    ETA,
    GATES,
    GLU0,
    LOG,
    MU,
    W0,
    B,
    H,
    K,
    P,
    Q,
    T,
    V,
    _assert_same,
)  # fmt: skip


def _muon(S):
    """Newton-Schulz as Muon runs it: on matrices, the smaller Gram matrix."""
    if S.shape[0] > S.shape[1]:
        return _muon(S.T).T
    X = S / (np.linalg.norm(S) + 1e-7)
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X


def _omega_loop(chunk, window, muon):
    """Token by token, one sequence and one head at a time."""
    y, last = np.zeros(P.shape), {n: np.zeros((B, *w.shape)) for n, w in DEEP0.items()}
    for b, h in np.ndindex(B, H):
        W = R = {n: w[h] for n, w in DEEP0.items()}
        S = {n: np.zeros_like(w) for n, w in W.items()}
        for t in range(T):
            if t % chunk == 0:
                R = W
            eta, alpha, mu = ETA[b, t, h], np.exp(LOG[b, t, h]), np.exp(MU[b, t, h])
            for n in W:
                S[n] = mu * S[n]
            for i in range(max(0, t - window + 1), t + 1):
                r = oracle_memory.predict(oracle_atlas.DEEP, R, K[b, i, h]) - P[b, i, h]
                g = oracle_memory.memory_vjp(oracle_atlas.DEEP, R, K[b, i, h], r)
                for n in W:
                    S[n] = S[n] + (1 if muon else -eta) * GATES["weight"][b, i, h] * g[n]
            W = {n: alpha * W[n] + (-eta * _muon(S[n]) if muon else S[n]) for n in W}
            y[b, t, h] = oracle_memory.predict(oracle_atlas.DEEP, W, Q[b, t, h])
        for n in W:
            last[n][b, h] = W[n]
    return y, last


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("name", ["omeganet", "atlas"])
def test_omega_rule_is_the_loop(name, window, chunk):
    got = getattr(oracle_atlas, name)(DEEP0, Q, K, P, GATES, chunk, window=window)
    _assert_same(got, _omega_loop(chunk, window, muon=name == "atlas"))


def test_mesa_is_the_least_squares_fit():
    ridge, still = 0.7, GATES | {"log_decay": 0 * LOG}
    y, last = oracle_atlas.mesa(W0, Q, K, V, still, 3, ridge=ridge)
    for b, h in np.ndindex(B, H):
        root = np.sqrt(ETA[b, :, h, None])
        left = np.concatenate([root * K[b, :, h], np.sqrt(ridge) * np.eye(DK)])
        right = np.concatenate([root * V[b, :, h], np.sqrt(ridge) * W0["w1"][h]])
        fit = np.linalg.lstsq(left, right, rcond=None)[0]
        np.testing.assert_allclose(last["w1"][b, h], fit, rtol=1e-10)
        np.testing.assert_allclose(y[b, -1, h], Q[b, -1, h] @ fit, rtol=1e-10, atol=1e-12)


def test_mesa_decays_its_sums():
    y, last = np.zeros(V.shape), np.zeros((B, H, DK, DV))
    for b, h in np.ndindex(B, H):
        gram, moment = np.zeros((DK, DK)), 0.7 * W0["w1"][h]
        for t in range(T):
            a, k = np.exp(LOG[b, t, h]), K[b, t, h]
            gram = a * gram + ETA[b, t, h] * np.outer(k, k)
            moment = a * moment + ETA[b, t, h] * np.outer(k, V[b, t, h])
            last[b, h] = np.linalg.inv(gram + 0.7 * np.eye(DK)) @ moment
            y[b, t, h] = Q[b, t, h] @ last[b, h]
    _assert_same(oracle_atlas.mesa(W0, Q, K, V, GATES, 3, ridge=0.7), (y, {"w1": last}))


def test_swiglu_gradient_is_a_difference_quotient():
    W, k, v, lr = {n: w[0] for n, w in GLU0.items()}, K[0, :, 0], P[0, :, 0], ETA[0, :, 0]
    grads = oracle_atlas.swiglu_gradient(W, k, v, lr)
    for name, w in W.items():
        for at in np.ndindex(w.shape):
            step = np.zeros_like(w)
            step[at] = 1e-5
            up, down = (oracle_atlas.swiglu(W | {name: w + s * step}, k) for s in (1, -1))
            slope = -np.sum(lr[:, None] * (up - down) * v) / 2e-5
            np.testing.assert_allclose(grads[name][at], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("over", "axis"), [("out", 1), ("in", 0)])
def test_lact_applies_then_updates(over, axis):
    """Chunks of 3 in 7 tokens: two updates, and the seventh token's chunk never acts."""
    y, last = oracle_atlas.lact(GLU0, Q, K, P, GATES, 3, norm_over=over)
    for b, h in np.ndindex(B, H):
        W = {n: w[h] for n, w in GLU0.items()}
        for s in (slice(0, 3), slice(3, 6), slice(6, 7)):
            np.testing.assert_allclose(y[b, s, h], oracle_atlas.swiglu(W, Q[b, s, h]), rtol=1e-9)
            g = oracle_atlas.swiglu_gradient(W, K[b, s, h], P[b, s, h], ETA[b, s, h])
            for n in W if s.stop < 7 else ():
                new = W[n] - _muon(g[n])
                unit = new / np.sqrt(np.sum(new**2, axis=axis, keepdims=True))
                W[n] = unit * np.sqrt(np.sum(GLU0[n][h] ** 2, axis=axis, keepdims=True))
        for n in W:
            np.testing.assert_allclose(last[n][b, h], W[n], rtol=1e-9, atol=1e-12)


MASK = np.array([[1, 0, 1, 1, 0, 1, 1], [0, 1, 1, 1, 1, 0, 1]], bool)
DOCUMENTS = np.array([[0, 0, 0, 1, 1, 0, 0], [2, 2, 2, 2, 2, 2, 2]])


@pytest.mark.parametrize("masked", [{}, {"mask": MASK, "segment_ids": DOCUMENTS}])
def test_a_wide_window_is_the_transformer(masked):
    wide = oracle_atlas.sliding_window(Q, K, V, window=T, **masked)
    np.testing.assert_allclose(wide, oracle_atlas.transformer(Q, K, V, **masked), atol=1e-12)


def test_attention_sees_its_window_mask_and_document():
    pair = oracle_atlas.sliding_window(Q, K, V, window=2)
    for t in range(1, T):
        two = oracle_atlas.transformer(*(x[:, t - 1 : t + 1] for x in (Q, K, V)))
        np.testing.assert_allclose(pair[:, t], two[:, 1], atol=1e-12)
    y = oracle_atlas.transformer(Q, K, V, mask=MASK, segment_ids=DOCUMENTS)
    alone = oracle_atlas.transformer(Q[:1, 5:], K[:1, 5:], V[:1, 5:])
    np.testing.assert_allclose(y[0, 5:], alone[0], atol=1e-12)  # id 0 again: a new document
    np.testing.assert_allclose(y[0, 2, 0], _two(Q[0, 2, 0], K[0, [0, 2], 0], V[0, [0, 2], 0]))
    np.testing.assert_array_equal(y[~MASK], 0)  # a masked token is not there


def _two(q, k, v):
    weight = np.exp(k @ q / np.sqrt(len(q)))
    return weight @ v / weight.sum()


def test_attention_by_hand():
    q, k = np.array([[0.0], [1.0]]), np.array([[np.log(3.0)], [0.0]])
    v = np.array([[4.0], [8.0]])
    y = oracle_atlas.transformer(*(x.reshape(1, 2, 1, 1) for x in (q, k, v)))
    np.testing.assert_allclose(y.ravel(), [4.0, (3 * 4.0 + 8.0) / 4])
