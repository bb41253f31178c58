"""The published recurrences of the matrix memories, each in its paper's own form (NumPy, float64).

Forms are chosen to share nothing with a recurrence of four parts: tiles and masks for the models
whose write does not read the memory, prefix products of transition matrices in the papers' state
S = W^T [Dv, Dk] for the delta family, a linear system for the implicit step. `oracle_presets.py`
holds linear_attention, retnet and the chunked deltanet; `oracle_atlas.py` mesa and the deep ones.

Unless a signature says otherwise a function takes (W0, q, k, v, gates, chunk): W0 {"w1": [H, Dk,
Dv]}, q, k [B, T, H, Dk], v [B, T, H, Dv], gates [B, T, H] or channel-wise [B, T, H, Dk | Dv]. It
returns the reads y [B, T, H, Dv] and the last weights {"w1": [B, H, Dk, Dv]}. A document starts at
token 0, nothing is masked, no decay is clamped. All models but ttt_linear are exact: `chunk` is
then ignored. Reads are not scaled by 1/sqrt(Dk).
"""

import numpy as np

TILE = 3  # of lightning; any length gives the same function


# ---- the write does not read the memory ---------------------------------------------------------


def _ratios(log_decay: np.ndarray) -> np.ndarray:
    """prod_{s<i<=t} a_i, [B, t, s, ...], 0 for s > t; log_decay [B, T, ...]."""
    total = np.cumsum(log_decay, axis=1)
    lag = total[:, :, None] - total[:, None]
    T = total.shape[1]
    causal = np.tri(T).reshape(1, T, T, *[1] * (log_decay.ndim - 2))
    return np.exp(np.minimum(lag, 0.0)) * causal


def lightning(W0, q, k, v, gates, chunk):
    """O = [(Q K^T) * M] V + Lambda Q KV, KV <- lambda^n KV + (lambda^n Lambda^-1 K)^T V.

    Lightning Attention-2 (2401.04658), algorithm 1: M_ts = lambda^(t-s) inside a tile of n tokens,
    one matrix KV between tiles, Lambda = diag(lambda, .., lambda^n). lambda is one constant per
    head, read off the first token. A ragged last tile has its own n.
    """
    del chunk
    B, T = q.shape[:2]
    rate = np.exp(gates["log_decay"][0, 0])  # [H]
    KV, y = np.repeat(W0["w1"][None], B, 0), np.zeros(v.shape)
    for start in range(0, T, TILE):
        now = slice(start, min(start + TILE, T))
        n = now.stop - now.start
        steps = np.arange(1, n + 1)
        M = np.tril(rate[:, None, None] ** np.abs(steps[:, None] - steps))
        Lam = rate[:, None] ** steps  # [H, n]
        V = gates["lr"][:, now, :, None] * v[:, now]
        intra = np.einsum("bthi,bshi->bhts", q[:, now], k[:, now]) * M
        y[:, now] = np.einsum("bhts,bsho->btho", intra, V)
        y[:, now] += np.einsum("ht,bthi,bhio->btho", Lam, q[:, now], KV)
        kept = rate[:, None] ** (n - steps)  # lambda^n Lambda^-1
        KV = (rate**n)[:, None, None] * KV + np.einsum("hs,bshi,bsho->bhio", kept, k[:, now], V)
    return y, {"w1": KV}


def mamba2(W0, q, k, v, gates, chunk):
    """y = (L * C B^T) dt X, L_ts = a_t ... a_{s+1} (Mamba-2 2405.21060, the dual form of SSD).

    C, B, X are q, k, v; dt is `lr` and a_t = exp(dt A) comes as `log_decay`, one per head. L is
    built entry by entry as a 1-semiseparable matrix.
    """
    del chunk
    a, dt, T = np.exp(gates["log_decay"]), gates["lr"], q.shape[1]
    L = np.zeros((q.shape[0], T + 1, T + 1, q.shape[2]))  # row and column 0 are the start
    for t in range(T + 1):
        for s in range(t + 1):
            L[:, t, s] = np.prod(a[:, s:t], axis=1)
    y = np.einsum("bth,bthi,hio->btho", L[:, 1:, 0], q, W0["w1"])
    scores = np.einsum("bthi,bshi->btsh", q, k) * L[:, 1:, 1:]
    y = y + np.einsum("btsh,bsh,bsho->btho", scores, dt, v)
    W = np.einsum("bh,hio->bhio", L[:, -1, 0], W0["w1"])
    write = (L[:, -1, 1:] * dt)[..., None] * k
    return y, {"w1": W + np.einsum("bshi,bsho->bhio", write, v)}


def mamba3(W0, q, k, v, gates, chunk):
    """h = a h + (1 - l) dt a [B X of the token before] + l dt [B X] (Mamba-3 2603.15569).

    Unrolled as its code does for a chunk: the outer product of token s is written by s with
    l_s dt_s and by s + 1 with (1 - l_{s+1}) dt_{s+1} a_{s+1}, and both decay from there. C, B, X
    are q, k, v; a = exp(dt A) comes as `log_decay`, l as `trapezoid`, one per head.
    """
    del chunk
    a, dt, own = np.exp(gates["log_decay"]), gates["lr"], gates["trapezoid"]
    T = q.shape[1]
    weight = np.zeros((q.shape[0], T, T, q.shape[2]))
    for t in range(T):
        for s in range(t + 1):
            weight[:, t, s] = own[:, s] * dt[:, s] * np.prod(a[:, s + 1 : t + 1], axis=1)
            if s < t:
                later = (1 - own[:, s + 1]) * dt[:, s + 1] * a[:, s + 1]
                weight[:, t, s] += later * np.prod(a[:, s + 2 : t + 1], axis=1)
    start = np.cumprod(a, axis=1)
    y = np.einsum("bth,bthi,hio->btho", start, q, W0["w1"])
    y = y + np.einsum("bthi,bshi,btsh,bsho->btho", q, k, weight, v)
    W = start[:, -1, :, None, None] * W0["w1"]
    return y, {"w1": W + np.einsum("bsh,bshi,bsho->bhio", weight[:, -1], k, v)}


def gla(W0, q, k, v, gates, chunk):
    """y_t = sum_{s<=t} P_ts v_s, P_ts = sum_i q_ti k_si exp(log b_ti - log b_si).

    GLA (2312.06635), section 4.1, the parallel form with P in log space; b is the running product
    of the key-channel gates, `log_decay` [B, T, H, Dk]. The start is read as (q_t * b_t) W_0.
    """
    del chunk
    ratio = _ratios(gates["log_decay"])
    b = np.exp(np.cumsum(gates["log_decay"], axis=1))
    P = np.einsum("bthi,bshi,btshi->btsh", q, k, ratio) * gates["lr"][:, None]
    y = np.einsum("bthi,hio->btho", q * b, W0["w1"]) + np.einsum("btsh,bsho->btho", P, v)
    W = b[:, -1, :, :, None] * W0["w1"]
    write = ratio[:, -1] * gates["lr"][..., None] * k
    return y, {"w1": W + np.einsum("bshi,bsho->bhio", write, v)}


def dfw(W0, q, k, v, gates, chunk):
    """W_t = (a_t b_t^T) * W_{t-1} + k_t^T v_t (decaying fast weights, 2210.04243).

    Unrolled: y_t = B_t * sum_s ((q_t * A_t) . (k_s / A_s)) (v_s / B_s), A and B the running
    products of `log_decay` [B, T, H, Dk] (rows) and `log_decay_value` [B, T, H, Dv] (columns).
    """
    del chunk
    rows, columns = _ratios(gates["log_decay"]), _ratios(gates["log_decay_value"])
    A = np.exp(np.cumsum(gates["log_decay"], axis=1))
    B = np.exp(np.cumsum(gates["log_decay_value"], axis=1))
    scores = np.einsum("bthi,btshi,bshi->btsh", q, rows, k) * gates["lr"][:, None]
    y = np.einsum("bthi,hio->btho", q * A, W0["w1"]) * B
    y = y + np.einsum("btsh,btsho,bsho->btho", scores, columns, v)
    W = A[:, -1, :, :, None] * B[:, -1, :, None, :] * W0["w1"]
    write = rows[:, -1] * gates["lr"][..., None] * k
    return y, {"w1": W + np.einsum("bshi,bsho->bhio", write, columns[:, -1] * v)}


def hgrn2(W0, q, k, v, gates, chunk):
    """h_t = diag(f_t) h_{t-1} + (1 - f_t)^T v_t (HGRN2 2404.07904); `k` and `lr` unused.

    Every row of W_t is a convex mean of the values and its own start: with r_s = prod_{s<i<=t} f_i
    the value at s has the weight r_s - r_{s-1}, the start r_0, and together they make r_t = 1.
    """
    del k, chunk
    start = np.exp(np.cumsum(gates["log_decay"], axis=1))
    r = np.concatenate([start[:, :, None], _ratios(gates["log_decay"])], axis=2)  # [B, t, 1+s, ..]
    T = r.shape[1]
    weight = np.diff(r, axis=2) * np.tri(T)[None, :, :, None, None]
    path = start[..., None] * W0["w1"] + np.einsum("btshi,bsho->bthio", weight, v)
    return np.einsum("bthi,bthio->btho", q, path), {"w1": path[:, -1]}


# ---- the delta family: S_t = S_{t-1} M_t + N_t in the papers' S = W^T ---------------------------


def _erase(beta, read, write) -> np.ndarray:
    """I - beta read^T write, [..., Dk, Dk]: S times it takes beta (S read) off along `write`."""
    outer = read[..., :, None] * write[..., None, :]
    return np.eye(read.shape[-1]) - beta[..., None, None] * outer


def _outer(beta, v, k) -> np.ndarray:
    """beta v^T k, [..., Dv, Dk]."""
    return beta[..., None, None] * v[..., :, None] * k[..., None, :]


def _prefix(S0, M, N) -> np.ndarray:
    """S_t = S_0 M_1 .. M_t + sum_s N_s M_{s+1} .. M_t for every t, [B, T, H, Dv, Dk].

    S0 [H, Dv, Dk], M [B, T, H, Dk, Dk], N [B, T, H, Dv, Dk]. Pairs compose as (M, N)(M', N') =
    (M M', N M' + N'), an associative product whose prefixes are formed by doubling.
    """
    step = 1
    while step < M.shape[1]:
        N = np.concatenate([N[:, :step], N[:, :-step] @ M[:, step:] + N[:, step:]], axis=1)
        M = np.concatenate([M[:, :step], M[:, :-step] @ M[:, step:]], axis=1)
        step *= 2
    return S0 @ M + N


def _reads(S, q):
    """y_t = S_t q_t for every t, and the last state as W = S^T."""
    return np.einsum("bthok,bthk->btho", S, q), {"w1": np.swapaxes(S[:, -1], -1, -2)}


def _transposed(W0) -> np.ndarray:
    return np.swapaxes(W0["w1"], -1, -2)


def deltanet_exact(W0, q, k, v, gates, chunk):
    """W_t = (I - beta_t k_t^T k_t) W_{t-1} + beta_t k_t^T v_t, one by one (DeltaNet 2406.06484).

    Each token's generalised Householder matrix is built and applied to W [Dk, Dv] from the left.
    """
    del chunk
    W, y = np.repeat(W0["w1"][None], q.shape[0], 0), np.zeros(v.shape)
    for t in range(q.shape[1]):
        write = gates["lr"][:, t, :, None] * k[:, t]
        householder = np.eye(k.shape[-1]) - write[..., :, None] * k[:, t, :, None, :]
        W = householder @ W + write[..., :, None] * v[:, t, :, None, :]
        y[:, t] = np.einsum("bhi,bhio->bho", q[:, t], W)
    return y, {"w1": W}


def gated_deltanet(W0, q, k, v, gates, chunk):
    """S_t = S_{t-1} (a_t (I - b_t k_t k_t^T)) + b_t v_t k_t^T (Gated DeltaNet 2412.06464)."""
    del chunk
    b, a = gates["lr"], np.exp(gates["log_decay"])[..., None, None]
    return _reads(_prefix(_transposed(W0), a * _erase(b, k, k), _outer(b, v, k)), q)


def kda(W0, q, k, v, gates, chunk):
    """S_t = (I - b_t k_t k_t^T) Diag(a_t) S_{t-1} + b_t k_t v_t^T (Kimi Linear 2510.26692, eq. 1).

    That S is [Dk, Dv]; here transposed, so that the decay multiplies first from the right.
    """
    del chunk
    b, a = gates["lr"], np.exp(gates["log_decay"])
    return _reads(_prefix(_transposed(W0), a[..., None] * _erase(b, k, k), _outer(b, v, k)), q)


def comba(W0, q, p, k, v, gates, chunk, order="decay_first"):
    """W_t = a_t W - b_t k_t^T (p_t W') + b_t k_t^T v_t, the error read at p_t (Comba 2506.02475).

    W' = a_t W under "decay_first". The paper's scalar plus low rank transition S (a_t - b_t p_t^T
    k_t), and the kernel of its authors, read the error before the decay: "learn_first", W' = W.
    """
    del chunk
    b, a = gates["lr"], np.exp(gates["log_decay"])[..., None, None]
    eye = np.eye(k.shape[-1])
    erase = _erase(b, p, k)
    M = {"decay_first": a * erase, "learn_first": a * eye + (erase - eye)}[order]
    return _reads(_prefix(_transposed(W0), M, _outer(b, v, k)), q)


def momentum_deltanet(W0, q, k, v, gates, chunk):
    """e = p W - v, M = mu M + eta k^T e, W = a W - b M with p = a k (Momentum DeltaNet 2605.05838).

    Token by token; a, b, eta and mu are `log_decay`, `update_rate`, `lr` and `log_momentum`.
    """
    del chunk
    W, y = np.repeat(W0["w1"][None], q.shape[0], 0), np.zeros(v.shape)
    M = np.zeros_like(W)
    a, mu = (np.exp(gates[n])[..., None, None] for n in ("log_decay", "log_momentum"))
    eta, b = (gates[n][..., None, None] for n in ("lr", "update_rate"))
    for t in range(q.shape[1]):
        e = np.einsum("bhi,bhio->bho", a[:, t, :, 0] * k[:, t], W) - v[:, t]
        M = mu[:, t] * M + eta[:, t] * k[:, t, :, :, None] * e[:, :, None]
        W = a[:, t] * W - b[:, t] * M
        y[:, t] = np.einsum("bhi,bhio->bho", q[:, t], W)
    return y, {"w1": W}


def deltaproduct(W0, q, k, v, gates, chunk):
    """H_t = a_t prod_j (I - b_tj k_tj k_tj^T) H_{t-1} + B_t (DeltaProduct 2502.10297).

    k [B, T, H, n, Dk], v [B, T, H, n, Dv], lr [B, T, H, n]; the gate acts once, before the first
    Householder matrix. The write of step j passes through the later ones: B_t = sum_j b_tj v_tj
    k_tj^T prod_{i>j} (I - b_ti k_ti k_ti^T), H transposed to S.
    """
    del chunk
    a, n = np.exp(gates["log_decay"])[..., None, None], k.shape[3]
    write = np.zeros((*v.shape[:3], v.shape[-1], k.shape[-1]))
    later = np.broadcast_to(np.eye(k.shape[-1]), (*k.shape[:3], k.shape[-1], k.shape[-1]))
    for j in reversed(range(n)):
        b, kj = gates["lr"][..., j], k[..., j, :]
        write = write + _outer(b, v[..., j, :], kj) @ later
        later = _erase(b, kj, kj) @ later
    return _reads(_prefix(_transposed(W0), a * later, write), q)


def rwkv7(W0, q, kap, a, ktilde, v, log_decay):
    """S_t = S_{t-1} (diag(w_t) - kap_t^T (a_t * kap_t)) + v_t^T ktilde_t (RWKV-7 2503.14456).

    Row vectors, S [Dv, Dk]: the state is read at kap_t and erased along a_t * kap_t, before any
    decay. In W = S^T that is diag(w_t) W - (a_t * kap_t)^T (kap_t W). kap, a, ktilde, log_decay
    [B, T, H, Dk]; y_t = S_t q_t (the receptance).
    """
    one = np.ones(kap.shape[:-1])
    eye = np.eye(kap.shape[-1])
    M = np.exp(log_decay)[..., None, :] * eye + (_erase(one, kap, a * kap) - eye)
    return _reads(_prefix(_transposed(W0), M, _outer(one, v, ktilde)), q)


def longhorn(W0, q, k, v, gates, chunk):
    """argmin_s ||s - s_{t-1}||^2 + b ||s . k_t - v_t||^2 for each value channel (2407.14207).

    `lr` is b [B, T, H, Dv]. The stationary point (I + b k^T k) s = s_{t-1} + b v k is solved as it
    stands; by Sherman-Morrison it is a delta step of size eps = b / (1 + b k.k). The paper's
    scan then keeps only the diagonal of k^T k; this is the dense form, the minimiser itself.
    """
    del chunk
    S, y = np.repeat(_transposed(W0)[None], q.shape[0], 0), np.zeros(v.shape)
    for t in range(q.shape[1]):
        b, kt = gates["lr"][:, t, :, :, None], k[:, t, :, None, :]  # [B, H, Dv | 1, 1 | Dk]
        system = np.eye(k.shape[-1]) + b[..., None] * (kt[..., :, None] * kt[..., None, :])
        S = np.linalg.solve(system, (S + b * v[:, t, :, :, None] * kt)[..., None])[..., 0]
        y[:, t] = np.einsum("bhok,bhk->bho", S, q[:, t])
    return y, {"w1": np.swapaxes(S, -1, -2)}


def titans_linear(W0, q, k, v, gates, chunk):
    """S_t = mu_t S_{t-1} - eta_t k_t^T (k_t W_{t-1} - v_t), W_t = a_t W_{t-1} + S_t, online.

    Titans (2501.00663), eqs 13-14, whose forgetting is 1 - a_t. Memory and momentum together are
    one linear state Z = [W^T, S^T] [Dv, 2 Dk]:
    Z_t = Z_{t-1} [[a I - eta k^T k, -eta k^T k], [mu I, mu I]] + eta v^T [k, k].
    """
    del chunk
    a, mu = (np.exp(gates[n])[..., None, None] for n in ("log_decay", "log_momentum"))
    eye = np.eye(k.shape[-1])
    pull = _erase(gates["lr"], k, k) - eye
    carried = mu * np.broadcast_to(eye, pull.shape)
    M = np.block([[a * eye + pull, pull], [carried, carried]])
    N = _outer(gates["lr"], v, np.concatenate([k, k], axis=-1))
    start = _transposed(W0)
    Z = _prefix(np.concatenate([start, np.zeros_like(start)], axis=-1), M, N)
    return _reads(Z[..., : k.shape[-1]], q)


def ttt_linear(W0, q, k, v, gates, chunk, token_idx=None):
    """z_t = q_t + LN(q_t W_t + b_t), l = 1/2 ||LN(k W + b) - (v - k)||^2 (TTT 2407.04620).

    The mini-batch's dual form of the official code (ttt-lm-jax): with the gradients D of k W + b at
    the batch's start and eta[t, s] = token_idx_t lr_s, which scales rows,

        Z = Q W - (eta * tril(Q K^T)) D + b - (eta * tril(1)) D
        W' = W - (eta_last * K)^T D, b' = b - sum eta_last * D          eta_last its last row

    token_idx [C] is 1 / (t + 1), plus what is learned; a mini-batch cut short ends with the row of
    its last token. LN has a fixed affine map. D is its pullback of e = s n + c - (v - k):
    (s e - mean(s e) - n mean(s e n)) / sigma.
    """
    token_idx = 1.0 / np.arange(1, chunk + 1) if token_idx is None else token_idx
    W, b = (np.repeat(W0[n][None], q.shape[0], 0) for n in ("w1", "b1"))
    y, s, c = np.zeros(v.shape), W0["scale"], W0["shift"]

    def norm(Z):
        sigma = np.sqrt(Z.var(axis=-1, keepdims=True) + 1e-6)
        return (Z - Z.mean(axis=-1, keepdims=True)) / sigma, sigma

    for start in range(0, q.shape[1], chunk):
        now = slice(start, min(start + chunk, q.shape[1]))
        Q, K, rows = q[:, now], k[:, now], token_idx[: min(chunk, q.shape[1] - start)]
        n, sigma = norm(np.einsum("bshi,bhio->bsho", K, W) + b[:, None])
        e = s * (s * n + c - (v[:, now] - K))
        D = (e - e.mean(axis=-1, keepdims=True) - n * (e * n).mean(axis=-1, keepdims=True)) / sigma
        eta = np.einsum("t,bsh->bhts", rows, gates["lr"][:, now]) * np.tri(Q.shape[1])
        attention = eta * np.einsum("bthi,bshi->bhts", Q, K)
        Z = np.einsum("bthi,bhio->btho", Q, W) + b[:, None]
        Z = Z - np.einsum("bhts,bsho->btho", attention + eta, D)
        y[:, now] = Q + s * norm(Z)[0] + c
        W = W - np.einsum("bhs,bshi,bsho->bhio", eta[:, :, -1], K, D)
        b = b - np.einsum("bhs,bsho->bho", eta[:, :, -1], D)
    return y, {"w1": W, "b1": b}
