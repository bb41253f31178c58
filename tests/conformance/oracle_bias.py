"""Attentional biases of the oracle: d loss / d prediction, and the gradient of one association.

NumPy, float64, one token; equation numbers are those of MIRAS (arXiv 2504.13173).
"""

import dataclasses
import math

import numpy as np

from tests.conformance.oracle_memory import (
    Weights,
    address,
    compressed,
    is_linear,
    memory_vjp,
    predict,
)


@dataclasses.dataclass(frozen=True)
class Association:
    """One (key, value) that a token writes.

    k, k_write [Dk]; v [Dv]; `rate` is the inner learning rate eta in a shape that broadcasts
    against a weight: a number, a column [Dk, 1] or a row [1, Dv].
    """

    k: np.ndarray
    v: np.ndarray
    k_write: np.ndarray | None
    rate: np.ndarray | float


def residual(bias: dict, pred: np.ndarray, v: np.ndarray, threshold: float = math.nan):
    """d loss / d pred of one token: -v for dot, r = pred - v for l2, and so on.

    The mixture of huber (Yaad, eq. 16) switches between two gradients and has no loss of its own.
    """
    kind, r = bias["kind"], pred - v
    if kind == "dot":
        return -v
    if kind in ("l2", "gated_l2"):  # of keys and values that are gated already
        return r
    if kind in ("lp", "l1"):  # eqs 10-12
        p = 1.0 if kind == "l1" else bias["p"]
        if p >= 2:
            return r * np.abs(r) ** (p - 2)
        if bias["smooth"]:  # Remark 5
            smooth_abs = np.sqrt(r**2 + bias.get("eps", 1e-6))
            return np.tanh(bias["sharpness"] * r) * smooth_abs ** (p - 1)
        return np.sign(r) * np.abs(r) ** (p - 1)
    length = math.sqrt(np.sum(r**2))
    if kind == "huber":
        if bias["variant"] == "coordinate":  # eq. 14
            return np.clip(r, -threshold, threshold)
        if bias["variant"] == "norm":  # eq. 15
            return r if length <= threshold else threshold * r / length
        if bias["variant"] == "mixture":  # eq. 16
            return r if length <= threshold else threshold * np.sign(r)
        raise ValueError(f"oracle: no huber variant {bias['variant']!r}")
    if kind == "robust":  # eq. 17
        return r if length == 0 else r + bias["radius"] * r / length
    raise ValueError(f"oracle: no bias {kind!r}")


def gradient(memory: dict, bias: dict, W: Weights, term: Association, gates: dict) -> Weights:
    """Gradient of one association's loss at W, for every weight that the memory writes.

    With k_write the error is read at k and the outer product is written along k_write. A slot
    memory takes the Hebbian write of ABC (2110.02488), k^T phi into the keys' slots and phi^T v
    into the values', phi being the `slot` gate, or under write="tied" 1 - alpha per slot, as in GSA
    (2409.07146); under write="gradient" it is a memory like the others. Compressed slots fit the
    key's slots and the value's to the gate `target`, each by a residual of its own (Trellis,
    2512.23852).
    """
    if memory["kind"] == "slots" and memory["write"] != "gradient":
        phi = gates["slot"] if memory["write"] == "gate" else 1.0 - np.exp(gates["log_decay"])
        return {"w1": -np.outer(term.k, phi), "w2": -np.outer(phi, term.v)}
    threshold = gates.get("threshold", math.nan)
    if memory["kind"] == "compressed_slots":
        errors = []
        for z in (term.k @ W["w1"], W["w2"] @ term.v):
            linear = memory["linear_writes"]
            pred, back = (z, lambda r: r) if linear else compressed(memory, z)
            errors.append(back(residual(bias, pred, gates["target"], threshold)))
        return {"w1": np.outer(term.k, errors[0]), "w2": np.outer(errors[1], term.v)}
    r = residual(bias, predict(memory, W, term.k), term.v, threshold)
    if term.k_write is None:
        return memory_vjp(memory, W, term.k, r)
    if not is_linear(memory):
        raise ValueError("oracle: k_write needs a linear memory")
    return {"w1": np.outer(address(memory, W, term.k_write), r)}
