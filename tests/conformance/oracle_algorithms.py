"""Memory algorithms of the oracle: from a token's gradients to the step U_t (NumPy, float64).

One head at a time. A_t = alpha_t A_{t-1} + U_t is the business of `oracle.py`, as is which weights
gradients are taken at. Sources: MIRAS 2504.13173, Titans 2501.00663, Longhorn 2407.14207,
DeltaProduct 2502.10297, Atlas 2505.23735, LaCT 2505.23884, MesaNet 2506.05233, and
kellerjordan.github.io/posts/muon.
"""

import dataclasses

import numpy as np

from tests.conformance.oracle_bias import Association, gradient
from tests.conformance.oracle_memory import Weights, address

QUINTIC = (3.4445, -4.7750, 2.0315)
# LaCT's language model code, zeropower_via_newtonschulz5.
QUINTICS = np.array(
    [
        [4.0848, -6.8946, 2.9270],
        [3.9505, -6.3029, 2.6377],
        [3.7418, -5.5913, 2.3037],
        [2.8769, -3.1427, 1.2046],
        [2.8366, -3.0525, 1.2012],
    ]
)
WINDOWED = ("omega", "muon", "adaptive")


@dataclasses.dataclass(frozen=True)
class Token:
    """What one token writes, and its gates as the recursion uses them: numbers or channels."""

    terms: tuple[Association, ...]
    gates: dict


@dataclasses.dataclass(frozen=True)
class Memory:
    """The state A (dual under a link) and the algorithm's buffers S and V, all of A's shapes."""

    A: Weights
    S: Weights
    V: Weights


def rate_scales_update(algorithm: dict) -> bool:
    """Whether eta_t multiplies the step (f_t = eta_t, e_t = 1), not the gradient."""
    kind = algorithm["kind"]
    return kind == "omega" or (kind in WINDOWED and algorithm["lr_at"] == "update")


def acts_per_chunk(algorithm: dict) -> bool:
    """Whether the step is taken once, at the chunk's end."""
    return algorithm.get("every", "token") == "chunk"


def implicit_rate(rate: np.ndarray | float, k: np.ndarray) -> np.ndarray:
    """Eta of the proximal step on 1/2 ||k W - v||^2 (Longhorn, theorem 3.1).

    min_W sum (W - W_0)^2 / (2 eta) + ||k W - v||^2 / 2 has W = W_0 - eta k^T e with e = k W - v,
    so e = e_0 / (1 + sum_i eta_i k_i^2). rate: a number, a row [1, Dv] or a column [Dk, 1].
    """
    return rate / (1.0 + np.sum(rate * k[:, None] ** 2, axis=0, keepdims=True))


def dgd_rates(algorithm: dict, eta: float) -> tuple[float, float]:
    """The rates of delta gradient descent, of I - rho x^T x and of the gradient.

    Nested Learning (2512.24695): "proximal" is arXiv's eta / (1 + eta) in both, "projection" the
    conference's I - x^T x beside eta, "gradient" eta in both, as HOPE's update is printed.
    """
    return {
        "proximal": (eta / (1.0 + eta), eta / (1.0 + eta)),
        "projection": (1.0, eta),
        "gradient": (eta, eta),
    }[algorithm["form"]]


def erased(algorithm: dict, W: Weights, x: Weights, token) -> Weights:
    """What a token takes from matrices W whose inputs are x, each cut to a length of at most 1."""
    if algorithm["kind"] != "dgd":
        return {}
    rho, _ = dgd_rates(algorithm, token.gates["lr"])
    found = {}
    for name, key in x.items():
        unit = key / max(1.0, np.sqrt(key @ key))
        found[name] = rho * np.outer(unit, unit @ W[name])
    return found


def learned(memory: dict, bias: dict, algorithm: dict, W: Weights, recent: list) -> Weights:
    """e_t G_t: what the last token of `recent` adds to the buffer, with gradients taken at W.

    W holds what is written and what is not. The terms of a token are taken at the same W, but under
    multi_step one after another. `recent` is the window of written tokens up to this one.
    """
    token, kind = recent[-1], algorithm["kind"]
    total: Weights = {}

    def add(g: Weights, factor) -> None:
        for name, x in g.items():
            total[name] = total.get(name, 0.0) + factor * x

    if kind in WINDOWED:
        for past in recent:
            (term,) = past.terms
            add(gradient(memory, bias, W, term, past.gates), past.gates.get("weight", 1.0))
        (term,) = token.terms
        e = 1.0 if rate_scales_update(algorithm) else term.rate
        return {name: e * x for name, x in total.items()}
    for term in token.terms:
        here = {n: w - total.get(n, 0.0) for n, w in W.items()} if kind == "multi_step" else W
        g = gradient(memory, bias, here, term, token.gates)
        rate = term.rate
        if kind == "dgd":
            rate = dgd_rates(algorithm, rate)[1]
        if kind == "implicit":
            rate = implicit_rate(rate, address(memory, W, term.k))
        add(g, rate)
    return total


def newton_schulz(S: np.ndarray, steps: int, quintics: str = "one") -> np.ndarray:
    """X <- a X + (b X X^T + c (X X^T)^2) X from X = S / (||S||_F + 1e-7); a vector: S / ||S||."""
    X = S / (np.sqrt(np.sum(S**2)) + 1e-7)
    if S.ndim == 1:
        return X
    for i in range(steps):
        a, b, c = QUINTIC if quintics == "one" else QUINTICS[i]
        # X X^T X = X (X^T X): either side gives the same
        gram = X.T @ X
        X = a * X + X @ (b * gram + c * gram @ gram)
    return X


def transformed(algorithm: dict, S: np.ndarray, V: np.ndarray, G: np.ndarray):
    """T(S) and the new V; V averages the squares of G."""
    if algorithm["kind"] == "muon":
        return newton_schulz(S, algorithm["steps"], algorithm.get("quintics", "one")), V
    if algorithm["variant"] == "sign":
        sharpness = algorithm["sharpness"]
        return (np.sign(S) if sharpness is None else np.tanh(sharpness * S)), V
    V = algorithm["beta2"] * V + (1.0 - algorithm["beta2"]) * G**2
    return S / (np.sqrt(V) + algorithm["eps"]), V


def step(algorithm: dict, S: np.ndarray, V: np.ndarray, G: np.ndarray, token: Token):
    """S_t, V_t and U_t of one weight; G is e_t G_t."""
    kind, mu = algorithm["kind"], np.exp(token.gates.get("log_momentum", -np.inf))
    if kind in ("gd", "implicit", "multi_step", "preconditioned", "dgd"):
        return -G, V, -G
    if kind == "momentum":
        S = mu * S - G
        return S, V, S
    if kind == "two_rate_momentum":
        S = mu * S - G
        return S, V, token.gates["update_rate"] * S
    if kind == "nesterov":
        S = mu * S - G
        return S, V, mu * S - G
    f = token.terms[0].rate if rate_scales_update(algorithm) else 1.0
    if kind == "omega":
        S = mu * S - f * G
        return S, V, S
    if acts_per_chunk(algorithm):  # without momentum the buffer is a sum, begun anew by `oracle`
        return (S if algorithm["momentum"] is None else mu * S) + G, V, np.zeros_like(G)
    S = mu * S + G
    T, V = transformed(algorithm, S, V, G)
    return S, V, -f * T


def newton_start(W: Weights, ridge: float) -> Weights:
    """G_0 = ridge W_0 and H_0 = 0."""
    width = len(W["w1"])
    return {"w1": ridge * W["w1"], "H": np.zeros((width, width))}


def newton_step(A: Weights, W: Weights, memory: dict, alpha: float, token: Token) -> Weights:
    """H and G after a token; W holds the feature map's coefficients, if any."""
    (term,) = token.terms
    k = address(memory, W, term.k)
    return {
        "w1": alpha * A["w1"] + term.rate * np.outer(k, term.v),
        "H": alpha * A["H"] + term.rate * np.outer(k, k),
    }


def newton_weight(A: Weights, ridge: float) -> Weights:
    """(H + ridge I)^{-1} G."""
    return {"w1": np.linalg.solve(A["H"] + ridge * np.eye(len(A["H"])), A["w1"])}
