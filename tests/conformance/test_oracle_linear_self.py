"""oracle_linear and oracle_atlas against each other, `oracle.run`, plain loops and differences.

Nothing of the package is tested here: these tests are the reason to believe those oracles.
"""

import numpy as np
import pytest

from tests.conformance import oracle, oracle_atlas, oracle_linear, oracle_presets

B, T, H, DK, DV = 2, 7, 2, 4, 5
DOT, L2, MATRIX = {"kind": "dot"}, {"kind": "l2"}, {"kind": "matrix"}
TTT = {"kind": "mlp", "depth": 1, "residual": True, "norm": "layer", "eps": 1e-6}
TTT |= {"affine": True, "biases": True}
AVERAGED = {"kind": "gd", "averaged": True}
RNG = np.random.default_rng(3)
Q, K, P, KT, V = (RNG.normal(size=(B, T, H, d)) for d in (DK, DK, DK, DK, DV))
W0, SQUARE = ({"w1": RNG.normal(size=(H, DK, d))} for d in (DV, DK))
DEEP0 = {"w1": RNG.normal(size=(H, DK, 6)), "w2": RNG.normal(size=(H, 6, DK))}
TTT0 = SQUARE | {n: RNG.normal(size=(H, DK)) for n in ("b1", "scale", "shift")}
GLU0 = {**DEEP0, "w3": RNG.normal(size=(H, DK, 6))}
ETA, LOG, MU = (-f * RNG.uniform(size=(B, T, H)) for f in (-0.4, 0.6, 0.9))
ROWS, COLUMNS = (-0.8 * RNG.uniform(size=(B, T, H, d)) for d in (DK, DV))
GATES = {"lr": ETA, "log_decay": LOG, "log_momentum": MU, "weight": RNG.uniform(size=(B, T, H))}
ONES, HELD = np.ones((B, T, H)), np.broadcast_to(LOG[:1, :1], LOG.shape)
ONE_STEP = dict(k=K[..., None, :], v=V[..., None, :], lr=ETA[..., None])
TWO_STEPS = dict(k=np.stack([K, KT], 3), v=np.stack([V, 2 * V], 3), lr=np.stack([ETA, ETA / 2], 3))
DELTA = (K, np.repeat(ETA[..., None], DK, -1), ETA[..., None] * K)  # rwkv7's kap, a, ktilde


def _run(W0, bias, algorithm="gd", memory=MATRIX, order="learn_first", chunk=1, v=V, decay=True):
    parts = {"memory": memory, "bias": bias, "retention": L2 if decay else {"kind": "none"}}
    algorithm = {"kind": algorithm} if isinstance(algorithm, str) else algorithm
    parts |= {"order": order, "algorithm": algorithm, "W0": W0, "chunk": chunk}
    y, last = oracle.run(**parts, gates=GATES, q=Q, k=K, v=v)
    return y, last["A"]


def _call(name, W0=W0, k=K, v=V, chunk=3, **gates):
    return getattr(oracle_linear, name)(W0, Q, k, v, GATES | gates, chunk)


def _comba(p, order):
    return oracle_linear.comba(W0, Q, p, K, V, GATES, 3, order=order)


def _rwkv7(kap, a, ktilde, log_decay):
    return oracle_linear.rwkv7(W0, Q, kap, a, ktilde, V, log_decay)


def _loop(step):
    """Reads after W[b, h] = step(W[b, h], (b, t, h)), token by token."""
    y, W = np.zeros(V.shape), np.repeat(W0["w1"][None], B, 0)
    for b, t, h in np.ndindex(B, T, H):
        W[b, h] = step(W[b, h], (b, t, h))
        y[b, t, h] = Q[b, t, h] @ W[b, h]
    return y, {"w1": W}


def _delta(W, lr, read, write, v):
    return W - np.outer(write, lr * (read @ W - v))


def _product_step(W, i):
    W = _delta(np.exp(LOG[i]) * W, ETA[i], K[i], K[i], V[i])
    return _delta(W, ETA[i] / 2, KT[i], KT[i], 2 * V[i])


def _longhorn_step(W, i):
    return _delta(W, (b := COLUMNS[i] + 1) / (1 + b * (K[i] @ K[i])), K[i], K[i], V[i])


def _rwkv7_step(W, i):
    """The released code's line, whose state is [Dv, Dk]."""
    sa = W.T @ -P[i]
    return (W.T * np.exp(ROWS[i]) + np.outer(sa, P[i] * KT[i] * 0.3) + np.outer(V[i], K[i])).T


PLAIN = {
    "dfw": lambda W, i: np.exp(ROWS[i][:, None] + COLUMNS[i]) * W + ETA[i] * np.outer(K[i], V[i]),
    "kda": lambda W, i: _delta(np.exp(ROWS[i])[:, None] * W, ETA[i], K[i], K[i], V[i]),
    "product": _product_step,
    "longhorn": _longhorn_step,
    "rwkv7": _rwkv7_step,
    "comba-decay": lambda W, i: _delta(np.exp(LOG[i]) * W, ETA[i], P[i], K[i], V[i]),
    "comba-learn": lambda W, i: _delta(W, ETA[i], P[i], K[i], V[i]) + np.expm1(LOG[i]) * W,
}
SAME = {
    "dfw": lambda: (_call("dfw", log_decay=ROWS, log_decay_value=COLUMNS), _loop(PLAIN["dfw"])),
    "kda": lambda: (_call("kda", log_decay=ROWS), _loop(PLAIN["kda"])),
    "product": lambda: (_call("deltaproduct", **TWO_STEPS), _loop(PLAIN["product"])),
    "longhorn": lambda: (_call("longhorn", lr=COLUMNS + 1), _loop(PLAIN["longhorn"])),
    "rwkv7": lambda: (_rwkv7(P, KT * 0.3, K, ROWS), _loop(PLAIN["rwkv7"])),
    "comba-decay": lambda: (_comba(P, "decay_first"), _loop(PLAIN["comba-decay"])),
    "comba-learn": lambda: (_comba(P, "learn_first"), _loop(PLAIN["comba-learn"])),
    "mamba2": lambda: (_call("mamba2"), _run(W0, DOT)),
    "lightning": lambda: (_call("lightning", log_decay=HELD), _call("mamba2", log_decay=HELD)),
    "retnet": lambda: (
        _call("lightning", log_decay=HELD),
        oracle_presets.retnet(W0, Q, K, V, GATES | {"log_decay": HELD}, 3),
    ),
    "gla-equal": lambda: (_call("gla", log_decay=LOG[..., None] + 0 * ROWS), _call("mamba2")),
    "gla-dfw": lambda: (
        _call("gla", log_decay=ROWS),
        _call("dfw", log_decay=ROWS, log_decay_value=0 * COLUMNS),
    ),
    "hgrn2": lambda: (
        _call("hgrn2", log_decay=ROWS),
        _call("gla", k=1 - np.exp(ROWS), lr=ONES, log_decay=ROWS),
    ),
    "deltanet": lambda: (_call("deltanet_exact"), _run(W0, L2, decay=False)),
    "gated-open": lambda: (_call("gated_deltanet", log_decay=0 * LOG), _call("deltanet_exact")),
    "gated": lambda: (_call("gated_deltanet"), _run(W0, L2, order="decay_first")),
    "kda-equal": lambda: (
        _call("kda", log_decay=LOG[..., None] + 0 * ROWS),
        _call("gated_deltanet"),
    ),
    "product-one": lambda: (_call("deltaproduct", **ONE_STEP), _call("gated_deltanet")),
    "comba-gated": lambda: (_comba(K, "decay_first"), _call("gated_deltanet")),
    "comba-run": lambda: (_comba(K, "learn_first"), _run(W0, L2)),
    "rwkv7-delta": lambda: (_rwkv7(*DELTA, 0 * ROWS), _call("deltanet_exact")),
    "rwkv7-run": lambda: (_rwkv7(*DELTA, LOG[..., None] + 0 * ROWS), _run(W0, L2)),
    "rwkv7-gla": lambda: (_rwkv7(0 * K, K, K, ROWS), _call("gla", lr=ONES, log_decay=ROWS)),
    "titans": lambda: (_call("titans_linear"), _run(W0, L2, "momentum")),
    "ttt-1": lambda: (
        _call("ttt_linear", TTT0, v=P, chunk=1),
        _run(TTT0, L2, memory=TTT, v=P, decay=False),
    ),
    "ttt-3": lambda: (
        _call("ttt_linear", TTT0, v=P, chunk=3),
        _run(TTT0, L2, AVERAGED, memory=TTT, v=P, decay=False, chunk=3),
    ),
    "omega-one": lambda: (
        oracle_atlas.omeganet(DEEP0, Q, K, P, GATES | {"weight": ONES}, 3, window=1),
        _run(DEEP0, L2, "momentum", memory=oracle_atlas.DEEP, chunk=3, v=P),
    ),
}


def _assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-10, atol=1e-10)
    for name in other[1]:
        np.testing.assert_allclose(one[1][name], other[1][name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", SAME)
def test_oracles_agree(case):
    _assert_same(*SAME[case]())
