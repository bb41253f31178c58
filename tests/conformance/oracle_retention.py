"""Retention of the oracle: decays, the link from dual state to weight, and proximal maps.

NumPy, float64, one matrix of one head at a time; equation numbers are those of MIRAS (2504.13173).

A dual retention keeps A, with A_t = decay * A_{t-1} + U_t and W_t = link(A_t). A proximal one keeps
W itself: W_t = prox(decay * W_{t-1} + U_t, old=W_{t-1}).
"""

import math
from collections.abc import Callable

import numpy as np

from tests.conformance.oracle_memory import Weights, edges

# ---- which kind of retention --------------------------------------------------------------------


def is_proximal(retention: dict) -> bool:
    """Whether the state is W itself and a map follows the linear step."""
    kind = retention["kind"]
    if kind == "elastic_net":
        return {"proximal": True, "ftrl": False}[retention["form"]]
    return kind in ("projection", "rows", "f_divergence")


def map_every(retention: dict) -> str:
    """How often link or proximal map act: "never", "token" or "chunk"."""
    kind = retention["kind"]
    if kind in ("none", "l2", "trapezoidal"):
        return "never"
    every = retention.get("link_every", "token")
    if every not in ("token", "chunk") or (kind, every) == ("f_divergence", "chunk"):
        raise ValueError(f"oracle: no link_every {every!r} for {kind!r}")
    return every


# ---- decays and rates ---------------------------------------------------------------------------


def effective(retention: dict, gates: dict) -> dict:
    """The gates `lr`, `log_decay` and `log_decay_value` as the recursion uses them.

    Without a decay gate `log_decay` is 0. Decays per channel, not per head, are held above
    min_log_decay. l2 may be `discretised`: alpha^eta (Mamba-2, 2405.21060). Coupled kl is eq. 21,
    A = (1 - lam) A - eta' g, lam = (1/a) / (1/a + 1/eta), eta' = 1 / (1/a + 1/eta). The proximal
    elastic net is eq. 22: decay lam = c2 / (c2 + eta), rate zeta = eta lam, and its own `gamma` =
    eta c2 / (c1 (eta + c2)).
    """
    kind, gates = retention["kind"], dict(gates)
    eta = gates["lr"]
    if kind in ("none", "rows", "f_divergence", "elastic_net"):
        gates = {name: g for name, g in gates.items() if "decay" not in name}
    for name in ("log_decay", "log_decay_value"):
        if np.ndim(gates.get(name, 0.0)):
            gates[name] = np.maximum(gates[name], retention.get("min_log_decay", -5.0))
    if kind in ("l2", "trapezoidal") and retention.get("discretised"):
        gates["log_decay"] = eta * gates["log_decay"]
    if kind == "kl" and retention.get("coupled"):
        a = np.exp(gates["log_decay"])
        gates["log_decay"], gates["lr"] = np.log(1 - eta / (eta + a)), 1 / (1 / a + 1 / eta)
    if kind == "elastic_net" and is_proximal(retention):
        c1, c2 = retention["c1"], retention["c2"]
        lam = c2 / (c2 + eta)
        gates["log_decay"], gates["lr"] = np.log(lam), eta * lam
        gates["gamma"] = eta * c2 / (c1 * (eta + c2))
    return gates


def decays(memory: dict, retention: dict, gates: dict, W: Weights) -> Weights:
    """The factor of every weight, in a shape that broadcasts against it; gates as `effective`.

    A gate with channels acts on the rows (`log_decay`) or columns (`log_decay_value`) that face the
    keys or the values; other sides of other weights see the geometric mean over its channels. A
    vector memory takes it elementwise; granularity "slot" means the slots. What is not given is 1.
    """
    key, value = (
        np.asarray(gates.get(n, 0.0), np.float64) for n in ("log_decay", "log_decay_value")
    )
    if retention.get("granularity") == "slot":
        return {"w1": np.exp(key)[None, :], "w2": np.exp(key)[:, None]}
    if memory["kind"] == "vector":
        return {"w1": np.exp(key)}
    rows, columns = edges(memory)
    factors = {}
    for name, w in W.items():
        if w.ndim == 1:  # a bias has columns alone
            own = value if value.ndim and name in columns else value.mean()
            factors[name] = np.exp(key.mean() + own)
            continue
        left = key[:, None] if key.ndim and name in rows else key.mean()
        right = value[None, :] if value.ndim and name in columns else value.mean()
        factors[name] = np.exp(left + right)
    return factors


# ---- links --------------------------------------------------------------------------------------


def _q_norm(x: np.ndarray, q: float) -> float:
    return float(np.sum(np.abs(x) ** q) ** (1.0 / q))


def _mirror_map(x: np.ndarray, q: float) -> np.ndarray:
    """sign(x) |x|^(q-1) / ||x||_q^(q-2) (Shalev-Shwartz 2012, section 2.6); 0 at x = 0.

    Let W be the image of x. |W|^q' = |x|^q / ||x||^((q-2) q') with q' = q / (q-1), so
    ||W||_q' = ||x||_q, and |W|^(q'-1) = |x| / ||x||^((q-2)(q'-1)) = |x| ||x||^(q'-2) because
    (q-1)(q'-1) = 1. Hence the same map with q' leads back to x.
    """
    norm = _q_norm(x, q)
    return x if norm == 0 else np.sign(x) * np.abs(x) ** (q - 1) / norm ** (q - 2)


def shrink(kind: str, z: np.ndarray, gamma: np.ndarray | float) -> np.ndarray:
    """T_gamma(z): "hard" sign(z) max(|z| - gamma, 0), "smooth" |z| arctan(z / gamma) / (pi / 2).

    The hard one is the soft threshold of the textbooks; the smooth one is eqs 22-23 as printed.
    """
    if kind == "hard":
        return np.sign(z) * np.maximum(np.abs(z) - gamma, 0.0)
    if kind == "smooth":  # arctan2 also knows gamma = 0
        return np.abs(z) * np.arctan2(z, gamma) / (math.pi / 2)
    raise ValueError(f"oracle: no threshold {kind!r}")


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """The root of a rising function, to the last bit."""
    while low < (middle := low + 0.5 * (high - low)) < high:
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return high


def _unshrink(kind: str, w: float, gamma: float) -> float:
    """z with T_gamma(z) = w; hard: the one at distance gamma (every |z| <= gamma leads to 0)."""
    size = abs(w)
    if size == 0:
        return 0.0
    if kind == "hard":
        return math.copysign(size + gamma, w)
    # T(z) >= z - 2 gamma / pi for z > 0
    high = 2.0 * (size + gamma)
    root = _bisect(lambda z: z * math.atan2(z, gamma) / (math.pi / 2) - size, 0.0, high)
    return math.copysign(root, w)


def link(retention: dict, A: np.ndarray) -> np.ndarray:
    """W of A."""
    kind = retention["kind"]
    if kind in ("none", "l2", "trapezoidal"):
        return A
    if kind == "lq":
        q = retention["q"]
        if retention["form"] == "mirror":
            return _mirror_map(A, q)
        norm = _q_norm(A, q)  # variant 4 as printed; degree 3 - q in A
        return A if norm == 0 else A / norm ** (q - 2)
    if kind == "kl":  # eq. 21: on the simplex of mass c along one axis
        e = np.exp(A - A.max(axis=_axis(retention, A), keepdims=True))
        return retention["scale"] * e / e.sum(axis=_axis(retention, A), keepdims=True)
    if kind == "bregman":
        if retention["potential"] == "sigmoid":
            return np.exp(-np.logaddexp(0.0, -A))
        return {"tanh": np.tanh}[retention["potential"]](A)
    if kind == "elastic_net":  # eq. 23
        return shrink(retention["threshold"], A, retention["gamma"])
    raise ValueError(f"oracle: no link for retention {kind!r}")


def unlink(retention: dict, W: np.ndarray) -> np.ndarray:
    """The dual start A of a primal weight W."""
    kind = retention["kind"]
    if kind == "kl":
        if np.any(W <= 0):
            raise ValueError("oracle: kl needs positive weights")
        return np.log(W)
    if kind == "lq":
        q = retention["q"]
        if retention["form"] == "mirror":
            return _mirror_map(W, q / (q - 1))
        norm = _q_norm(W, q)
        # At q = 3 every scale of A has the same image, so no scale is better than W's own.
        return W if norm == 0 or q == 3 else W * norm ** ((q - 2) / (3 - q))
    if kind == "bregman":
        low = {"sigmoid": 0.0, "tanh": -1.0}[retention["potential"]]
        if np.any(low >= W) or np.any(W >= 1):
            raise ValueError(f"oracle: bregman needs weights in ({low}, 1)")
        return np.log(W) - np.log1p(-W) if low == 0 else np.arctanh(W)
    if kind == "elastic_net":
        A = np.zeros(W.shape)
        for i in np.ndindex(W.shape):
            A[i] = _unshrink(retention["threshold"], W[i], retention["gamma"])
        return A
    return link(retention, W)


def _axis(retention: dict, x: np.ndarray) -> int:
    return 0 if x.ndim == 1 else retention["axis"]


# ---- proximal maps ------------------------------------------------------------------------------


def _inverse_slope(generator: str, x: np.ndarray) -> np.ndarray:
    """g = (f')^-1, held at 0 from below; f is t log t - t + 1, (t - 1)^2 or (sqrt(t) - 1)^2."""
    if generator == "kl":
        return np.exp(x)
    if generator == "chi2":
        return np.maximum(0.0, 1.0 + 0.5 * x)
    if generator == "hellinger":  # f' = 1 - t^(-1/2) stays below 1
        inside = x < 1
        return np.where(inside, (1.0 - np.where(inside, x, 0.0)) ** -2.0, np.inf)
    raise ValueError(f"oracle: no generator {generator!r}")


def _divergence_step(retention: dict, U: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Eq. 18 for one slice: old * g(U - zeta), with zeta such that it sums to c."""
    generator, mass = retention["generator"], retention["scale"]
    live = old > 0  # what is 0 stays 0, and does not bear on zeta

    def total(zeta: float) -> float:
        return float(np.sum(old[live] * _inverse_slope(generator, U[live] - zeta)))

    high, step = U[live].max(), 1.0
    low = high - 1.0  # the pole of hellinger, where the sum is infinite
    while total(high) > mass:
        high, step = high + step, 2.0 * step
    while total(low) < mass:
        low, step = low - step, 2.0 * step
    zeta = _bisect(lambda z: mass - total(z), low, high)
    moved = np.zeros(old.shape)
    moved[live] = old[live] * _inverse_slope(generator, U[live] - zeta)
    return moved


def _norms(x: np.ndarray, axis: int) -> np.ndarray:
    return np.sqrt(np.sum(x**2, axis=axis, keepdims=True))


def prox(retention: dict, new: np.ndarray, old: np.ndarray, gates: dict) -> np.ndarray:
    """The weight after the linear step `new` from `old`; `gates` are those of that step.

    projection: onto the Frobenius ball. rows: every slice of `new` gets the norm that it had in
    `old`; a slice runs along `in` (axis 0, LaCT's code) or `out` (axis 1) or is a whole vector, and
    a slice of norm 0 stays 0. elastic_net (eq. 22): T_gamma(new). f_divergence (eq. 18):
    `new - old` is the step U.
    """
    kind = retention["kind"]
    if kind == "projection":
        norm = math.sqrt(np.sum(new**2))
        return new if norm <= retention["radius"] else new * (retention["radius"] / norm)
    if kind == "rows":
        axis = _axis(retention, new)
        norm = _norms(new, axis)
        return new * _norms(old, axis) / np.where(norm == 0, 1.0, norm)
    if kind == "elastic_net":
        return shrink(retention["threshold"], new, gates["gamma"])
    if kind == "f_divergence":
        axis = _axis(retention, new)
        steps, starts = (np.moveaxis(x, axis, -1) for x in (new - old, old))
        moved = np.zeros(starts.shape)
        for i in np.ndindex(starts.shape[:-1]):
            moved[i] = _divergence_step(retention, steps[i], starts[i])
        return np.moveaxis(moved, -1, axis)
    raise ValueError(f"oracle: no proximal map for retention {kind!r}")
