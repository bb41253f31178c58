"""Keys and values that a rule makes itself, and the published recurrences of these rules.

NumPy, float64, one token at a time. Gated DeltaNet-2 (2605.22791) and Preconditioned DeltaNet
(2604.21100), as flash-linear-attention computes them. The recurrences of presets take and return
what those of `oracle_linear` do.
"""

import dataclasses

import numpy as np

EPS = 1e-6


def preconditioner(moment: np.ndarray, center, bound: float) -> np.ndarray:
    """x^(-r / (1 + |r|)), r = log(A + 1e-6) - c."""
    r = np.log(moment + EPS) - center
    return bound ** (-r / (1 + np.abs(r)))


def mapped(
    retention: dict, bias: dict, algorithm: dict, tokens: list, segments: np.ndarray
) -> list:
    """The tokens of one head with the keys and values that parts make of them."""
    moment, before, written = 0.0, None, []
    for t, token in enumerate(tokens):
        gates, terms = token.gates, []
        if t > 0 and segments[t] != segments[t - 1]:
            moment, before = 0.0, None
        own = token.terms
        if retention["kind"] == "trapezoidal":  # Mamba-3 (2603.15569)
            (term,), share = own, gates["trapezoid"]
            own = (dataclasses.replace(term, rate=share * term.rate),)
            if before is not None:  # at this token's rate, decayed over its step
                rate = (1 - share) * np.exp(gates["log_decay"]) * term.rate
                own = (*own, dataclasses.replace(before, rate=rate))
            before = term
        for term in own:
            along = term.k if term.k_write is None else term.k_write
            if bias["kind"] == "gated_l2":
                term = dataclasses.replace(
                    term, k=gates["erase"] * term.k, v=gates["write"] * term.v, k_write=along
                )
            if algorithm["kind"] == "preconditioned":
                decay = np.exp(gates["log_moment_decay"])
                moment = decay * moment + gates["moment_rate"] * along**2
                P = preconditioner(moment, gates["center"], algorithm["bound"])
                term = dataclasses.replace(term, k_write=P * along)
            terms.append(term)
        written.append(dataclasses.replace(token, terms=tuple(terms)))
    return written


def _transitions(W0, q, k, alpha, erase, along, value):
    """S_t = (I - along^T erase) Diag(alpha) S_{t-1} + along^T value, with whole matrices."""
    B, T, H, D = k.shape
    y, last = np.zeros(value.shape), np.zeros((B, *W0["w1"].shape))
    for b, h in np.ndindex(B, H):
        S = W0["w1"][h]
        for t in range(T):
            at = b, t, h
            transition = (np.eye(D) - np.outer(along[at], erase[at])) @ np.diag(alpha[at])
            S = transition @ S + np.outer(along[at], value[at])
            y[at] = q[at] @ S
        last[b, h] = S
    return y, {"w1": last}


def gated_deltanet2(W0, q, k, v, gates, chunk):
    """S = (I - k (b * k)^T) Diag(e^g) S + k (w * v)^T, arXiv 2605.22791."""
    del chunk
    alpha = np.exp(gates["log_decay"])
    return _transitions(W0, q, k, alpha, gates["erase"] * k, k, gates["write"] * v)


def _preconditioned(W0, q, k, v, gates, alpha):
    """S = (I - beta (P * k) k^T) Diag(alpha) S + beta (P * k) v^T."""
    beta = gates["lr"][..., None]
    along, A = np.zeros(k.shape), np.zeros(k[:, 0].shape)
    for t in range(k.shape[1]):
        of_token = {name: gate[:, t, :, None] for name, gate in gates.items() if gate.ndim == 3}
        A = np.exp(of_token["log_moment_decay"]) * A + of_token["moment_rate"] * k[:, t] ** 2
        along[:, t] = preconditioner(A, of_token["center"], 1.5) * k[:, t]
    return _transitions(W0, q, k, alpha, k, beta * along, v)


def preconditioned_deltanet(W0, q, k, v, gates, chunk):
    """Without a decay of S."""
    del chunk
    return _preconditioned(W0, q, k, v, gates, np.ones(k.shape))


def preconditioned_gated_deltanet(W0, q, k, v, gates, chunk):
    """A decay per head."""
    del chunk
    alpha = np.broadcast_to(np.exp(gates["log_decay"])[..., None], k.shape)
    return _preconditioned(W0, q, k, v, gates, alpha)


def preconditioned_kda(W0, q, k, v, gates, chunk):
    """A decay per key channel."""
    del chunk
    return _preconditioned(W0, q, k, v, gates, np.exp(gates["log_decay"]))
