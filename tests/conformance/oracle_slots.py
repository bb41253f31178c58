"""Trellis as published: two passes of online gradient descent onto slots (NumPy, float64).

Nothing is shared with `oracle.py`: the state is S [slots, width], as printed, and the Jacobian of
phi is a matrix. Arguments and results are those of `oracle_linear`.
"""

import numpy as np

EPS = 1e-6


def _phi(z: np.ndarray) -> np.ndarray:
    """LN(SiLU(z))."""
    s = z / (1.0 + np.exp(-z))
    return (s - s.mean()) / np.sqrt(s.var() + EPS)


def _jacobian(z: np.ndarray) -> np.ndarray:
    """d phi_i / d z_j."""
    m, sigma = len(z), 1.0 / (1.0 + np.exp(-z))
    s = z * sigma
    centred = np.eye(m) - 1.0 / m
    n, scale = _phi(z), np.sqrt(s.var() + EPS)
    of_norm = (centred - np.outer(n, n) / m) / scale
    return of_norm @ np.diag(sigma + s * (1.0 - sigma))


def _step(S: np.ndarray, at: np.ndarray, x: np.ndarray, a: np.ndarray, beta, gamma) -> np.ndarray:
    """beta S - gamma J^T (phi(S x) - a) x^T, its gradient at another state `at`."""
    z = at @ x
    return beta * S - gamma * np.outer(_jacobian(z).T @ (_phi(z) - a), x)


def trellis(W0, q, k, v, gates, chunk):
    """S_K and S_V by the same step from x = k and from x = v, y = S_V^T phi(S_K q) after both."""
    B, T, H, _ = q.shape
    y = np.zeros(v.shape)
    last = {name: np.zeros((B, *w.shape)) for name, w in W0.items()}
    for b, h in np.ndindex(B, H):
        S_K, S_V = np.array(W0["w1"][h].T), np.array(W0["w2"][h])
        for t in range(T):
            if t % chunk == 0:
                at_K, at_V = S_K, S_V
            a, gamma = gates["target"][b, t, h], gates["lr"][b, t, h]
            beta = np.exp(gates["log_decay"][b, t, h])
            S_K = _step(S_K, at_K, k[b, t, h], a, beta, gamma)
            S_V = _step(S_V, at_V, v[b, t, h], a, beta, gamma)
            y[b, t, h] = S_V.T @ _phi(S_K @ q[b, t, h])
        last["w1"][b, h], last["w2"][b, h] = S_K.T, S_V
    return y, last
