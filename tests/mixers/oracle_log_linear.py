"""Independent oracle of log-linear memories: NumPy, float64, token by token (arXiv 2506.04761).

One sequence, one head; W is [Dk, Dv]. Levels are merged by counting their tokens.
"""

import numpy as np


def log_linear(W0, q, k, v, decay, rate, lambdas, *, bias, momentum=None, order="decay_first"):
    """y [T, Dv] of q, k [T, Dk], v [T, Dv], decays and rates [T], and lambdas [T, L].

    W = a W + rate k^T v for bias "dot" (Mamba-2); with "l2" a W - rate k^T (k W - v) at a W (Gated
    DeltaNet) or, for order "learn_first", at W. Momentum mu [T] makes S = mu S - step, W = a W + S.
    """
    L, T = lambdas.shape[1], len(q)
    W = [np.zeros_like(W0) for _ in range(L - 1)] + [W0.copy()]
    S = [np.zeros_like(W0) for _ in range(L)]
    held = [0] * L
    y = np.zeros(v.shape)
    for t in range(T):
        level = 0
        while level < L - 1 and held[level] == 2**level:
            for each in (W, S):
                each[level + 1] = each[level + 1] + each[level]
                each[level] = np.zeros_like(W0)
            held[level + 1] += held[level]
            held[level] = 0
            level += 1
        for n in range(L):
            value = v[t] if n == 0 else np.zeros_like(v[t])
            seen = decay[t] * W[n] if order == "decay_first" else W[n]
            error = -value if bias == "dot" else k[t] @ seen - value
            step = rate[t] * np.outer(k[t], error)
            S[n] = -step if momentum is None else momentum[t] * S[n] - step
            W[n] = decay[t] * W[n] + S[n]
        held[0] += 1
        y[t] = sum(lambdas[t, n] * (q[t] @ W[n]) for n in range(L))
    return y
