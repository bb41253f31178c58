"""Mesa, the omega rule, LaCT and softmax attention, each in its paper's own form (NumPy, float64).

Closed sums and normal equations instead of a recurrence: the omega window is a band of weights, a
Newton-Schulz step acts on singular values, mesa solves its regression anew at every token. The
linear matrix memories live in `oracle_linear.py`.

W0 leaves [H, in, out], q, k [B, T, H, Dk], v [B, T, H, Dv], gates [B, T, H]. The functions return
the reads y [B, T, H, Dv] and the last weights, leaves [B, H, in, out]; attention has no weights and
returns y alone. A document starts at token 0 and nothing is masked, except in attention.

The deep memory of omeganet and atlas is M(x) = x + LN(GELU(x w1) w2) without a learned affine map,
on features that the caller has already applied.
"""

import functools

import numpy as np

from tests.conformance.oracle_memory import Weights, memory_vjp, predict

DEEP = {"kind": "mlp", "depth": 2, "activation": "gelu"}
DEEP |= {"residual": True, "norm": "layer", "eps": 1e-6}
QUINTIC = (3.4445, -4.7750, 2.0315)


def _products(gate: np.ndarray) -> np.ndarray:
    """prod_{s<=i<t} gate_i, [n + 1, n + 1], 0 for s > t; gate [n]. Column 0: the start."""
    n = len(gate)
    return np.array([[np.prod(gate[s:t]) * (s <= t) for s in range(n + 1)] for t in range(n + 1)])


def _sums(start: np.ndarray, steps: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """x_t = gate_t x_{t-1} + step_t in closed form: [n, in, out] of start [in, out]."""
    path = np.concatenate([start[None], steps])
    return np.einsum("ts,sio->tio", _products(gate), path)[1:]


# ---- mesa ---------------------------------------------------------------------------------------


def mesa(W0, q, k, v, gates, chunk, *, ridge):
    """W_t = (sum_s g_ts k_s^T k_s + lam I)^-1 (sum_s g_ts k_s^T v_s + lam g_t0 W_0).

    MesaNet (2506.05233): the minimiser of sum_s g_ts ||k_s W - v_s||^2 + lam ||W||^2 (the
    last term about g_t0 W_0, where the paper starts from 0), g_ts = eta_s prod_{s<i<=t} a_i. The
    ridge does not decay, the pull towards W_0 does. Exact: `chunk` changes nothing.
    """
    del chunk
    a, y = np.exp(gates["log_decay"]), np.zeros(v.shape)
    for t in range(q.shape[1]):
        kept = np.stack([np.prod(a[:, s : t + 1], axis=1) for s in range(t + 2)], axis=1)
        weight = gates["lr"][:, : t + 1] * kept[:, 1:]
        weighted = weight[..., None] * k[:, : t + 1]
        gram = np.einsum("bshi,bshj->bhij", weighted, k[:, : t + 1])
        moment = np.einsum("bshi,bsho->bhio", weighted, v[:, : t + 1])
        moment = moment + ridge * kept[:, 0, :, None, None] * W0["w1"]
        W = np.linalg.solve(gram + ridge * np.eye(k.shape[-1]), moment)
        y[:, t] = np.einsum("bhi,bhio->bho", q[:, t], W)
    return y, {"w1": W}


# ---- the omega rule -----------------------------------------------------------------------------


def newton_schulz(S: np.ndarray, steps: int = 5) -> np.ndarray:
    """The quintic Newton-Schulz iteration, on singular values: U p(..p(s)) V^T, p odd.

    X <- a X + (b X X^T + c (X X^T)^2) X from X = S / (||S||_F + 1e-7) keeps U and V and maps each
    singular value by p(s) = a s + b s^3 + c s^5 (Muon's coefficients). S [..., in, out].
    """
    a, b, c = QUINTIC
    norm = np.sqrt(np.sum(S**2, axis=(-2, -1), keepdims=True))
    U, s, Vt = np.linalg.svd(S / (norm + 1e-7), full_matrices=False)
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return (U * s[..., None, :]) @ Vt


def _window_gradients(memory, R: Weights, k, v, weight, now: slice, window: int) -> Weights:
    """G_t = sum_{t-window<i<=t} weight_i grad 1/2 ||M(R, k_i) - v_i||^2 for t in `now`.

    k [T, Dk], v [T, Dv], weight [T] of one head; leaves [n, in, out]. Tokens before the chunk are
    evaluated at R too.
    """
    first = max(0, now.start - window + 1)
    seen, written = np.arange(first, now.stop), np.arange(now.start, now.stop)
    g = [memory_vjp(memory, R, k[i], predict(memory, R, k[i]) - v[i]) for i in seen]
    lag = written[:, None] - seen[None]
    band = np.where((lag >= 0) & (lag < window), weight[seen], 0.0)
    return {n: np.einsum("ti,ixy->txy", band, np.stack([x[n] for x in g])) for n in R}


def _omega(W0, q, k, v, gates, chunk, window, memory, paths):
    """Loop over sequences, heads and chunks; `paths` gives (W, S) after each token of a chunk."""
    B, T, H, _ = q.shape
    y, last = np.zeros(v.shape), {n: np.zeros((B, *w.shape)) for n, w in W0.items()}
    for b, h in np.ndindex(B, H):
        R = {n: w[h] for n, w in W0.items()}
        S = {n: np.zeros_like(w) for n, w in R.items()}
        for start in range(0, T, chunk):
            now = slice(start, min(start + chunk, T))
            weight = gates["weight"][b, :, h]
            G = _window_gradients(memory, R, k[b, :, h], v[b, :, h], weight, now, window)
            gate = {n: g[b, now, h] for n, g in gates.items()}
            path = {n: paths(R[n], S[n], G[n], gate) for n in R}
            for i, t in enumerate(range(now.start, now.stop)):
                y[b, t, h] = predict(memory, {n: W[i] for n, (W, _) in path.items()}, q[b, t, h])
            R, S = ({n: p[j][-1] for n, p in path.items()} for j in (0, 1))
        for n in last:
            last[n][b, h] = R[n]
    return y, last


def omeganet(W0, q, k, v, gates, chunk, *, window, memory=DEEP):
    """S_t = mu_t S_{t-1} - eta_t G_t, W_t = alpha_t W_{t-1} + S_t (Atlas 2505.23735, omega rule).

    G_t = sum over the last `window` tokens of gamma_i grad l(M; k_i, v_i), all at the memory before
    token t's chunk. Gates: weight (gamma), lr, log_decay, log_momentum.
    """

    def paths(R, S, G, gate):
        step = -gate["lr"][:, None, None] * G
        S = _sums(S, step, np.exp(gate["log_momentum"]))
        return _sums(R, S, np.exp(gate["log_decay"])), S

    return _omega(W0, q, k, v, gates, chunk, window, memory, paths)


def atlas(W0, q, k, v, gates, chunk, *, window, memory=DEEP):
    """S_t = mu_t S_{t-1} + G_t, W_t = alpha_t W_{t-1} - eta_t NS_5(S_t) (Atlas 2505.23735).

    G_t as in omeganet. S does not see the memory inside a chunk, so every NS_5(S_t) of a chunk is
    known at once and the memory is one closed sum of them.
    """

    def paths(R, S, G, gate):
        S = _sums(S, G, np.exp(gate["log_momentum"]))
        step = -gate["lr"][:, None, None] * newton_schulz(S)
        return _sums(R, step, np.exp(gate["log_decay"])), S

    return _omega(W0, q, k, v, gates, chunk, window, memory, paths)


# ---- LaCT ---------------------------------------------------------------------------------------


def swiglu(W: Weights, x: np.ndarray) -> np.ndarray:
    """M(x) = (silu(x w1) * (x w3)) w2, leaves [..., in, out], x [..., n, Dk]."""
    gate, up = x @ W["w1"], x @ W["w3"]
    return (gate / (1.0 + np.exp(-gate)) * up) @ W["w2"]


def swiglu_gradient(W: Weights, k: np.ndarray, v: np.ndarray, lr: np.ndarray) -> Weights:
    """Gradient of -sum_t lr_t <M(k_t), v_t>; k [..., n, Dk], v [..., n, Dv], lr [..., n].

    With z = k w1, u = k w3 and d = v w2^T the pullbacks of the hidden unit silu(z) u are
    d silu(z) for u and d u silu'(z) for z, silu' = sigma + silu (1 - sigma).
    """
    z, u = k @ W["w1"], k @ W["w3"]
    sigma = 1.0 / (1.0 + np.exp(-z))
    silu = z * sigma
    d = -lr[..., None] * v @ np.swapaxes(W["w2"], -1, -2)
    Kt = np.swapaxes(k, -1, -2)
    return {
        "w1": Kt @ (d * u * (sigma + silu * (1.0 - sigma))),
        "w2": np.swapaxes(silu * u, -1, -2) @ (-lr[..., None] * v),
        "w3": Kt @ (d * silu),
    }


def lact(W0, q, k, v, gates, chunk, *, norm_over="out"):
    """Per chunk: apply, then W <- rescale(W - NS_5(sum_t eta_t g_t)) (LaCT 2505.23884).

    The loss is -<M(k), v>. Every token of a chunk reads the memory before it; an unfinished last
    chunk does not act. `rescale` gives every slice back the norm that it had before the chunk:
    slices of fixed `in`, norm over "out" (rows), or, as in the authors' code, slices of fixed
    `out`, norm over "in".
    """
    axis = {"in": -2, "out": -1}[norm_over]
    W = {n: np.repeat(w[None], q.shape[0], 0) for n, w in W0.items()}
    q, k, v = (np.moveaxis(x, 1, 2) for x in (q, k, v))  # [B, H, T, D]
    lr, y = np.moveaxis(gates["lr"], 1, 2), np.zeros(v.shape)
    for start in range(0, q.shape[2], chunk):
        now = slice(start, start + chunk)
        y[:, :, now] = swiglu(W, q[:, :, now])
        if now.stop > q.shape[2]:
            break
        g = swiglu_gradient(W, k[:, :, now], v[:, :, now], lr[:, :, now])
        moved = {n: W[n] - newton_schulz(g[n]) for n in W}
        for n, w in moved.items():
            old, new = (np.linalg.norm(x, axis=axis, keepdims=True) for x in (W[n], w))
            W[n] = w * (old / new)
    return np.moveaxis(y, 2, 1), W


# ---- attention ----------------------------------------------------------------------------------


def without_masked(attention):
    """Attention over the tokens of each row that a mask leaves, put back in place among zeros."""

    @functools.wraps(attention)
    def masked(q, k, v, *, mask=None, segment_ids=None, **options):
        if mask is None:
            return attention(q, k, v, segment_ids=segment_ids, **options)
        y = np.zeros(v.shape)
        for b, own in enumerate(np.asarray(mask, bool)):
            row = [x[b : b + 1, own] for x in (q, k, v)]
            ids = None if segment_ids is None else segment_ids[b : b + 1, own]
            y[b, own] = attention(*row, segment_ids=ids, **options)[0]
        return y

    return masked


def _same_document(segment_ids, shape):
    """Whether two tokens are of one document, [B, T, T]; a change of id starts one."""
    ids = np.zeros(shape, int) if segment_ids is None else np.asarray(segment_ids)
    document = np.cumsum(np.diff(ids, axis=1, prepend=ids[:, :1]) != 0, axis=1)
    return document[:, :, None] == document[:, None, :]


@without_masked
def transformer(q, k, v, *, segment_ids=None):
    """softmax(Q K^T / sqrt(Dk) + M) V with the causal mask M (Vaswani 1706.03762, eq. 1).

    A masked token is not there, and reads 0.
    """
    same = _same_document(segment_ids, q.shape[:2])  # [B, t, s]
    visible = (same & np.tri(q.shape[1], dtype=bool))[:, None]
    scores = np.einsum("bthi,bshi->bhts", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(visible, scores, -1e30)
    weight = np.exp(scores - scores.max(axis=-1, keepdims=True)) * visible
    return np.einsum("bhts,bsho->btho", weight / weight.sum(axis=-1, keepdims=True), v)


@without_masked
def sliding_window(q, k, v, *, window, segment_ids=None):
    """The Nadaraya-Watson mean of the values of keys t - window < s <= t (MIRAS 2504.13173).

    Query by query over the keys that it sees: the weights are exp(q.k / sqrt(Dk)) over their sum.
    Masks and documents as in `transformer`.
    """
    B, T, _, Dk = q.shape
    same = _same_document(segment_ids, (B, T))
    y = np.zeros(v.shape)
    for b, t in np.ndindex(B, T):
        s = np.arange(max(0, t - window + 1), t + 1)
        s = s[same[b, t, s]]
        kernel = np.exp(np.einsum("hi,shi->sh", q[b, t], k[b, s]) / np.sqrt(Dk))
        y[b, t] = np.einsum("sh,sho->ho", kernel, v[b, s]) / kernel.sum(axis=0)[:, None]
    return y
