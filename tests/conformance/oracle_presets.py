"""The published recurrences of the named models, each in its own paper's form (NumPy, float64).

Not composed from parts: the matrix memories are written as parallel or projection forms, the deep
ones as sums over a chunk, as their papers train them, and the two models with a link as a chain of
primal weights or a closed sum. `oracle.run` is the same thing as one recurrence of four parts;
`test_oracle_self.py` holds the two against each other. `PARTS` names the parts of each model.

Every function takes (W0, q, k, v, gates, chunk): W0 leaves [H, in, out], q, k [B, T, H, Dk],
v [B, T, H, Dv], gates [B, T, H]. It returns the reads y [B, T, H, Dv] and the last weights
[B, H, in, out]. A document starts at token 0 and nothing is masked.

The deep memory is M(x) = x + LN(GELU(x w1) w2), without a learned affine map; TTT's has one, and
biases.
"""

import numpy as np

from tests.conformance.oracle_memory import Weights

EPS = 1e-6

DEEP = {"kind": "mlp", "depth": 2, "expansion": 4, "activation": "gelu"}
DEEP |= {"residual": True, "norm": "layer", "eps": EPS}
MATRIX, NONE, L2, GD = {"kind": "matrix"}, {"kind": "none"}, {"kind": "l2"}, {"kind": "gd"}
LQ4 = {"kind": "lq", "q": 4.0, "form": "printed", "link_every": "token"}
SIMPLEX = {"kind": "kl", "scale": 1.0, "axis": 0, "link_every": "token"}
L3 = {"kind": "lp", "p": 3.0, "smooth": False}
MIXTURE = {"kind": "huber", "variant": "mixture"}
MOMENTUM = {"kind": "momentum"}


def _parts(memory: dict, bias: dict, retention: dict, algorithm: dict) -> dict[str, dict]:
    return {"memory": memory, "bias": bias, "retention": retention, "algorithm": algorithm}


PARTS = {
    "linear_attention": _parts(MATRIX, {"kind": "dot"}, NONE, GD),
    "retnet": _parts(MATRIX, {"kind": "dot"}, L2, GD),
    "deltanet": _parts(MATRIX, {"kind": "l2"}, NONE, GD),
    "ttt_mlp": _parts(
        DEEP | {"affine": True, "biases": True}, {"kind": "l2"}, NONE, GD | {"averaged": True}
    ),
    "titans_lmm": _parts(DEEP, {"kind": "l2"}, L2, MOMENTUM),
    "moneta": _parts(DEEP, L3, LQ4, GD),
    "yaad": _parts(DEEP, MIXTURE, L2, GD),
    "memora": _parts(DEEP, {"kind": "l2"}, SIMPLEX, GD),
}


def _start(W0: Weights, batch: int) -> Weights:
    return {n: np.repeat(np.asarray(w, np.float64)[None], batch, 0) for n, w in W0.items()}


# ---- matrix memories ----------------------------------------------------------------------------


def linear_attention(W0, q, k, v, gates, chunk):
    """y_t = q_t W_0 + sum_{s<=t} eta_s (q_t . k_s) v_s (Katharopoulos 2006.16236).

    The paper's eta is 1. A dot bias never reads the memory, so `chunk` changes nothing.
    """
    del chunk
    scores = np.einsum("bthi,bshi->bhts", q, k) * np.tri(q.shape[1])
    y = np.einsum("bthi,hio->btho", q, W0["w1"])
    y = y + np.einsum("bhts,bsh,bsho->btho", scores, gates["lr"], v)
    W = W0["w1"][None] + np.einsum("bsh,bshi,bsho->bhio", gates["lr"], k, v)
    return y, {"w1": W}


def retnet(W0, q, k, v, gates, chunk):
    """y = (Q K^T * D) V, D_ts = gamma^(t-s) for s <= t (RetNet 2307.08621, eq. 5).

    gamma is one constant per head, read off the first token; the start decays as gamma^(t+1) W_0.
    """
    del chunk
    gamma = np.exp(gates["log_decay"][0, 0])  # [H]
    T = q.shape[1]
    lag = np.arange(T)[:, None] - np.arange(T)[None]
    D = np.where(lag >= 0, gamma[:, None, None] ** np.maximum(lag, 0), 0.0)
    scores = np.einsum("bthi,bshi->bhts", q, k) * D
    powers = gamma[None, :] ** np.arange(1, T + 1)[:, None]  # [T, H]
    y = np.einsum("bthi,hio,th->btho", q, W0["w1"], powers)
    y = y + np.einsum("bhts,bsh,bsho->btho", scores, gates["lr"], v)
    W = W0["w1"][None] * powers[-1][None, :, None, None]
    W = W + np.einsum("hs,bsh,bshi,bsho->bhio", D[:, -1], gates["lr"], k, v)
    return y, {"w1": W}


def deltanet(W0, q, k, v, gates, chunk):
    """W_t = (I - beta_t k_t^T k_t) W_{t-1} + beta_t k_t^T v_t (DeltaNet 2406.06484).

    At chunk C the errors of a chunk are all read from the memory W_c that it started with:
    W_{c+1} = (I - K^T diag(beta) K) W_c + K^T diag(beta) V.
    """
    B, T, H, Dk = k.shape
    W, y = _start(W0, B)["w1"], np.zeros(v.shape)
    for b in range(B):
        for h in range(H):
            for start in range(0, T, chunk):
                snapshot = W[b, h].copy()
                for t in range(start, min(start + chunk, T)):
                    K, V = k[b, start : t + 1, h], v[b, start : t + 1, h]
                    write = K.T * gates["lr"][b, start : t + 1, h]
                    W[b, h] = (np.eye(Dk) - write @ K) @ snapshot + write @ V
                    y[b, t, h] = q[b, t, h] @ W[b, h]
    return y, {"w1": W}


# ---- the deep memory ----------------------------------------------------------------------------


def _gelu(z):
    """z sigma(2u), the tanh form in sigmoid dress, and its slope."""
    u2 = 2.0 * np.sqrt(2.0 / np.pi) * (z + 0.044715 * z**3)
    sigma = np.exp(-np.logaddexp(0.0, -u2))
    slope = sigma + z * sigma * (1 - sigma) * 2.0 * np.sqrt(2.0 / np.pi) * (1 + 0.134145 * z**2)
    return z * sigma, slope


def _deep(W: Weights, x: np.ndarray):
    """M(x) for W [B, H, in, out] and x [B, C, H, D], with the values that its gradient needs."""
    Z1 = np.einsum("bchi,bhij->bchj", x, W["w1"])
    X2, slope = _gelu(Z1)
    Z2 = np.einsum("bchj,bhjo->bcho", X2, W["w2"])
    sigma = np.sqrt(Z2.var(axis=-1, keepdims=True) + EPS)
    n = (Z2 - Z2.mean(axis=-1, keepdims=True)) / sigma
    return x + n, (X2, slope, n, sigma)


def _chunk_gradients(W: Weights, k, v, error) -> Weights:
    """Gradients of one chunk's tokens at the memory W, leaves [B, C, H, in, out].

    `error` maps r = M(k) - v to d loss / d M(k). The layer norm's Jacobian is written out:
    (I - 1 1^T / D - n n^T / D) / sigma.
    """
    pred, (X2, slope, n, sigma) = _deep(W, k)
    D = v.shape[-1]
    jacobian = np.eye(D) - 1.0 / D - n[..., :, None] * n[..., None, :] / D
    dZ2 = np.einsum("bchop,bcho->bchp", jacobian, error(pred - v)) / sigma
    dZ1 = np.einsum("bcho,bhjo->bchj", dZ2, W["w2"]) * slope
    return {
        "w1": np.einsum("bchi,bchj->bchij", k, dZ1),
        "w2": np.einsum("bchj,bcho->bchjo", X2, dZ2),
    }


def _read(W: Weights, q_t: np.ndarray) -> np.ndarray:
    """M(q_t) of one token, q_t [B, H, D]."""
    return _deep(W, q_t[:, None])[0][:, 0]


def _spans(T: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, T)) for start in range(0, T, chunk)]


def _products(gate: np.ndarray) -> np.ndarray:
    """prod_{s<i<=t} gate_i of one chunk, [B, t, s, H], 0 for s > t; gate [B, C, H]."""
    B, C, H = gate.shape
    P = np.zeros((B, C, C, H))
    for t in range(C):
        for s in range(t + 1):
            P[:, t, s] = np.prod(gate[:, s + 1 : t + 1], axis=1)
    return P


def _decayed_sums(A: Weights, g: Weights, alpha: np.ndarray, eta: np.ndarray) -> Weights:
    """A_t = beta_t A_0 - sum_s (beta_t / beta_s) eta_s g_s, leaves [B, C, H, in, out]."""
    beta = np.cumprod(alpha, axis=1)
    return {
        n: np.einsum("bth,bhio->bthio", beta, A[n])
        - np.einsum("btsh,bsh,bshio->bthio", _products(alpha), eta, g[n])
        for n in A
    }


def _at(path: Weights, i: int) -> Weights:
    return {n: w[:, i] for n, w in path.items()}


def ttt_mlp(W0, q, k, v, gates, chunk, token_idx=None):
    """TTT-MLP's mini-batch in its dual form, as the official code (ttt-lm-jax) has it.

    f(x) = LN(GELU(x W1 + b1) W2 + b2), fitted to v - k; z_t = q_t + f(q_t; W_t). With the gradients
    D1, D2 of the layers' outputs at the mini-batch's start, and eta[t, s] = token_idx_t lr_s,

        Z1 = Q W1 - (eta * tril(Q K^T)) D1 + b1 - (eta * tril(1)) D1, Z2 alike,
        W1' = W1 - (eta_last * K)^T D1, b1' = b1 - sum eta_last * D1

    where eta_last is eta's last row. token_idx [C] is 1 / (t + 1), plus what is learned; a
    mini-batch cut short ends with the row of its last token. LN's affine map is fixed.
    """
    token_idx = 1.0 / np.arange(1, chunk + 1) if token_idx is None else token_idx
    W, y = _start(W0, q.shape[0]), np.zeros(v.shape)
    scale, shift = W["scale"][:, None], W["shift"][:, None]

    def norm(Z):
        sigma = np.sqrt(Z.var(axis=-1, keepdims=True) + EPS)
        return (Z - Z.mean(axis=-1, keepdims=True)) / sigma, sigma

    for now in _spans(q.shape[1], chunk):
        Q, K, V = q[:, now], k[:, now], v[:, now]
        X2, slope = _gelu(np.einsum("bshi,bhij->bshj", K, W["w1"]) + W["b1"][:, None])
        n, sigma = norm(np.einsum("bshj,bhjo->bsho", X2, W["w2"]) + W["b2"][:, None])
        dn = (scale * n + shift - (V - K)) * scale
        D2 = dn - dn.mean(axis=-1, keepdims=True) - n * (dn * n).mean(axis=-1, keepdims=True)
        D2 = D2 / sigma
        D1 = np.einsum("bsho,bhjo->bshj", D2, W["w2"]) * slope
        rows = token_idx[: Q.shape[1]]
        eta = np.einsum("t,bsh->bhts", rows, gates["lr"][:, now]) * np.tri(Q.shape[1])

        def layer(x, X, D, w, b, eta=eta):
            attention = eta * np.einsum("bthi,bshi->bhts", x, X)
            steps = np.einsum("bhts,bsho->btho", attention + eta, D)
            return np.einsum("bthi,bhio->btho", x, w) + b[:, None] - steps

        Z1 = layer(Q, K, D1, W["w1"], W["b1"])
        Z2 = layer(_gelu(Z1)[0], X2, D2, W["w2"], W["b2"])
        y[:, now] = Q + norm(Z2)[0] * scale + shift
        last = np.moveaxis(eta[:, :, -1], 1, 2)  # [B, C, H]
        W = W | {
            "w1": W["w1"] - np.einsum("bsh,bshi,bsho->bhio", last, K, D1),
            "w2": W["w2"] - np.einsum("bsh,bshi,bsho->bhio", last, X2, D2),
            "b1": W["b1"] - np.einsum("bsh,bsho->bho", last, D1),
            "b2": W["b2"] - np.einsum("bsh,bsho->bho", last, D2),
        }
    return y, {name: W[name] for name in ("w1", "w2", "b1", "b2")}


def titans_lmm(W0, q, k, v, gates, chunk):
    """M_t = (1 - alpha_t) M_{t-1} + S_t, S_t = eta_t S_{t-1} - theta_t grad (Titans, eqs 13-14).

    Titans' letters: alpha forgets, eta is the momentum, theta the step. Within a chunk (section
    3.2) surprise and memory are sums over its tokens, with beta_t = prod (1 - alpha_i):
    S_t = prod eta S_0 - sum_s (prod_{s<i<=t} eta_i) theta_s u_s,
    M_t = beta_t M_0 + sum_s (beta_t / beta_s) S_s.
    """
    alpha, eta = 1.0 - np.exp(gates["log_decay"]), np.exp(gates["log_momentum"])
    M, y = _start(W0, q.shape[0]), np.zeros(v.shape)
    S = {n: np.zeros_like(w) for n, w in M.items()}
    for now in _spans(q.shape[1], chunk):
        u = _chunk_gradients(M, k[:, now], v[:, now], lambda r: r)
        surprise = _decayed_sums(S, u, eta[:, now], gates["lr"][:, now])
        minus_one = -np.ones_like(alpha[:, now])
        memory = _decayed_sums(M, surprise, 1.0 - alpha[:, now], minus_one)
        for i, t in enumerate(range(now.start, now.stop)):
            y[:, t] = _read(_at(memory, i), q[:, t])
        M, S = _at(memory, -1), _at(surprise, -1)
    return y, M


def yaad(W0, q, k, v, gates, chunk):
    """W_t = alpha_t W_{t-1} - eta_t grad, l2 where ||r|| <= delta_t else delta_t l1 (MIRAS 5.3)."""
    W, y = _start(W0, q.shape[0]), np.zeros(v.shape)
    for now in _spans(q.shape[1], chunk):
        delta = gates["threshold"][:, now, :, None]

        def error(r, delta=delta):
            trusted = np.linalg.norm(r, axis=-1, keepdims=True) <= delta
            return np.where(trusted, r, delta * np.sign(r))

        g = _chunk_gradients(W, k[:, now], v[:, now], error)
        path = _decayed_sums(W, g, np.exp(gates["log_decay"][:, now]), gates["lr"][:, now])
        for i, t in enumerate(range(now.start, now.stop)):
            y[:, t] = _read(_at(path, i), q[:, t])
        W = _at(path, -1)
    return y, W


def moneta(W0, q, k, v, gates, chunk, link_every="token"):
    """A_t = alpha_t A_{t-1} - eta_t grad l_p, W_t = A_t / ||A_t||_q^(q-2), (p, q) = (3, 4).

    MIRAS 5.3 as printed; the norm is taken per head and matrix. W_0 = A_0 / ||A_0||_4^2
    gives A_0 = W_0 / ||W_0||_4^2. With the link once per chunk, the tokens before the chunk's
    last read the linear path from the chunk's first weights.
    """

    def linked(x):
        return {n: a / np.sqrt(np.sum(a**4, axis=(-2, -1), keepdims=True)) for n, a in x.items()}

    W, y = _start(W0, q.shape[0]), np.zeros(v.shape)
    A = linked(W)
    for now in _spans(q.shape[1], chunk):
        g = _chunk_gradients(W, k[:, now], v[:, now], lambda r: np.sign(r) * r**2)
        decay, lr = np.exp(gates["log_decay"][:, now]), gates["lr"][:, now]
        path, linear = _decayed_sums(A, g, decay, lr), _decayed_sums(W, g, decay, lr)
        for i, t in enumerate(range(now.start, now.stop)):
            exact = link_every == "token" or i == chunk - 1
            y[:, t] = _read(linked(_at(path, i)) if exact else _at(linear, i), q[:, t])
        A = _at(path, -1)
        W = linked(A)
    return y, W


def memora(W0, q, k, v, gates, chunk, link_every="token"):
    """W_t = softmax(alpha_t log W_{t-1} - eta_t grad) over `in` (MIRAS 5.3).

    A chain of primal weights, as printed: no dual state is carried. With the link once per chunk,
    the first token of a chunk takes this step alone (the lag token) and the rest of the chunk
    takes its gradients there and reads alpha_t L_{t-1} - eta_t grad from there.
    """
    W, y = _start(W0, q.shape[0]), np.zeros(v.shape)
    alpha, eta = (x[..., None, None] for x in (np.exp(gates["log_decay"]), gates["lr"]))
    for t in range(q.shape[1]):
        first = t % chunk == 0
        if first or (link_every == "chunk" and t % chunk == 1):
            snapshot = dict(W)
        g = _at(_chunk_gradients(snapshot, k[:, t : t + 1], v[:, t : t + 1], lambda r: r), 0)
        for n in W:
            power = W[n] ** alpha[:, t] * np.exp(-eta[:, t] * g[n])
            W[n] = power / power.sum(axis=-2, keepdims=True)
        if first or link_every == "token":
            L = dict(W)
        else:
            L = {n: alpha[:, t] * L[n] - eta[:, t] * g[n] for n in W}
        y[:, t] = _read(L, q[:, t])
    return y, W
