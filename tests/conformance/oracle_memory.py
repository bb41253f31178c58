"""Memories of the oracle: M(W, x) of one token and its vector-Jacobian product (NumPy, float64).

A memory is a plain dict with a `kind`; its weights W are a dict of arrays [in, out] or [out] and
multiply from the right. Gradients are derived by hand. What the memory learns from is in
`oracle_bias.py`, the loop over tokens in `oracle.py`.
"""

import itertools
import math

import numpy as np

Weights = dict[str, np.ndarray]

FIXED = ("taylor", "scale", "shift")  # stand among the weights and are never written
_erf = np.vectorize(math.erf, otypes=[np.float64])


# ---- activations and norms ----------------------------------------------------------------------


def activate(kind: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The activation and its derivative at z (relu's derivative at 0 is 0)."""
    if kind == "identity":
        return z, np.ones_like(z)
    if kind == "relu":
        return np.maximum(z, 0.0), (z > 0).astype(np.float64)
    if kind == "tanh":
        t = np.tanh(z)
        return t, 1.0 - t**2
    if kind == "silu":
        s = 0.5 * (1.0 + np.tanh(0.5 * z))
        return z * s, s + z * s * (1.0 - s)
    if kind == "gelu":  # the tanh form
        c, a = math.sqrt(2.0 / math.pi), 0.044715
        t = np.tanh(c * (z + a * z**3))
        return 0.5 * z * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t**2) * c * (
            1.0 + 3.0 * a * z**2
        )
    if kind == "gelu_exact":
        cdf = 0.5 * (1.0 + _erf(z / math.sqrt(2.0)))
        return z * cdf, cdf + z * np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    raise ValueError(f"oracle: no activation {kind!r}")


def normalise(kind: str | None, z: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
    """The normalised vector and the scale that z was divided by."""
    if kind is None:
        return z, 1.0
    if kind == "layer":
        centred = z - z.mean()
        scale = math.sqrt(np.mean(centred**2) + eps)
        return centred / scale, scale
    if kind == "rms":
        scale = math.sqrt(np.mean(z**2) + eps)
        return z / scale, scale
    raise ValueError(f"oracle: no norm {kind!r}")


def normalise_vjp(kind: str | None, n: np.ndarray, scale: float, dn: np.ndarray) -> np.ndarray:
    """Cotangent of z from the cotangent dn of n = normalise(z).

    d scale / dz_j = n_j / D for both norms (eps included), hence dz = (dn - n mean(dn n)) / scale,
    less the mean of dn for the layer norm.
    """
    if kind is None:
        return dn
    dz = dn - n * np.mean(dn * n)
    if kind == "layer":
        dz = dz - dn.mean()
    return dz / scale


def softmax(z: np.ndarray) -> np.ndarray:
    """exp(z) / sum exp(z) of a vector."""
    e = np.exp(z - z.max())
    return e / e.sum()


# ---- feature maps -------------------------------------------------------------------------------


def features(memory: dict, x: np.ndarray, taylor: np.ndarray | None = None) -> np.ndarray:
    """phi(x) of one token.

    polynomial: monomials by rising degree, within a degree in lexicographic order of their index
    tuples i <= j <= .. (1, x0, x1, x0 x0, x0 x1, x1 x1). taylor: c_i times the i-fold tensor power
    of x, flattened, i = 0..degree; without given c_i they are sqrt(1 / i!), so that phi(q) . phi(k)
    is sum_i (q . k)^i / i! (Atlas 2505.23735, section 3.1; Based 2402.18668).
    """
    kind = memory["map"]
    if kind == "elu":
        return np.where(x > 0, x + 1.0, np.exp(np.minimum(x, 0.0)))
    if kind == "relu2":
        return np.maximum(x, 0.0) ** 2
    if kind == "polynomial":
        return np.array(
            [
                math.prod(x[i] for i in indices)
                for degree in range(memory["degree"] + 1)
                for indices in itertools.combinations_with_replacement(range(len(x)), degree)
            ],
            np.float64,
        )
    if kind == "taylor":
        parts, power = [], np.ones(1)
        for i in range(memory["degree"] + 1):
            c = math.sqrt(1.0 / math.factorial(i)) if taylor is None else taylor[i]
            parts.append(c * power)
            power = np.outer(power, x).ravel()
        return np.concatenate(parts)
    raise ValueError(f"oracle: no feature map {kind!r}")


def written(W: Weights) -> Weights:
    """The weights that the memory itself writes."""
    return {name: w for name, w in W.items() if name not in FIXED}


# ---- the memories -------------------------------------------------------------------------------


def edges(memory: dict) -> tuple[set[str], set[str]]:
    """Names of the weights whose rows are key channels, and of those whose columns are values'."""
    kind = memory["kind"]
    if kind == "features":
        rows, columns = edges(memory["inner"])
        return (rows if memory["map"] in ("elu", "relu2") else set()), columns
    if kind == "gated_mlp":
        return {"w1", "w3"}, {"w2"}
    if kind in ("slots", "compressed_slots"):
        return {"w1"}, {"w2"}
    depth = memory.get("depth", 1)
    return {"w1"}, {f"w{depth}", f"b{depth}"}


def _layers(memory: dict, W: Weights) -> list[np.ndarray]:
    """w1..wn in order, behind them b1..bn if there are any."""
    known = {"gated_mlp": 3, "slots": 2, "compressed_slots": 2}
    count = known.get(memory["kind"], memory.get("depth", 1))
    names = [f"w{i + 1}" for i in range(count)]
    names += [f"b{i + 1}" for i in range(count)] if memory.get("biases") else []
    if sorted(written(W)) != sorted(names):
        raise ValueError(f"oracle: weights {sorted(W)} given, {names} needed")
    return [W[name] for name in names]


def _mlp_forward(memory: dict, W: Weights, x: np.ndarray):
    """M(W, x) with what the backward pass needs: layer inputs, activation slopes, norm, scale."""
    depth, weights = memory["depth"], _layers(memory, W)
    biases = weights[depth:] or [0.0] * depth
    inputs, slopes, z = [x], [], x @ weights[0] + biases[0]
    for w, b in zip(weights[1:depth], biases[1:]):
        h, slope = activate(memory["activation"], z)
        inputs.append(h)
        slopes.append(slope)
        z = h @ w + b
    n, scale = normalise(memory["norm"], z, memory.get("eps", 1e-6))
    out = n * W["scale"] + W["shift"] if memory.get("affine") else n
    return (x + out if memory["residual"] else out), inputs, slopes, n, scale


def _mlp_vjp(memory: dict, W: Weights, x: np.ndarray, dpred: np.ndarray) -> Weights:
    _, inputs, slopes, n, scale = _mlp_forward(memory, W, x)
    dn = dpred * W["scale"] if memory.get("affine") else dpred
    dz = normalise_vjp(memory["norm"], n, scale, dn)
    grads = {}
    for i in range(memory["depth"], 0, -1):
        grads[f"w{i}"] = np.outer(inputs[i - 1], dz)
        if memory.get("biases"):
            grads[f"b{i}"] = dz
        if i > 1:
            dz = (W[f"w{i}"] @ dz) * slopes[i - 2]
    return grads


def _gated_forward(memory: dict, W: Weights, x: np.ndarray):
    """[x +] norm((silu(x w1) * (x w3)) w2), and gate, its slope, up, norm, scale."""
    w1, w2, w3 = _layers(memory, W)
    gate, slope = activate("silu", x @ w1)
    up = x @ w3
    n, scale = normalise(memory["norm"], (gate * up) @ w2, memory.get("eps", 1e-6))
    return (x + n if memory["residual"] else n), gate, slope, up, n, scale


def _gated_vjp(memory: dict, W: Weights, x: np.ndarray, dpred: np.ndarray) -> Weights:
    _, gate, slope, up, n, scale = _gated_forward(memory, W, x)
    dz = normalise_vjp(memory["norm"], n, scale, dpred)
    dh = W["w2"] @ dz
    return {
        "w1": np.outer(x, dh * up * slope),
        "w2": np.outer(gate * up, dz),
        "w3": np.outer(x, dh * gate),
    }


def _slots_vjp(memory: dict, W: Weights, x: np.ndarray, dpred: np.ndarray) -> Weights:
    """With p = softmax(c x w1): dp = w2 dpred, and the softmax pulls it back to p (dp - p . dp)."""
    w1, w2 = _layers(memory, W)
    p = softmax(memory["scale"] * (x @ w1))
    dp = w2 @ dpred
    return {"w1": memory["scale"] * np.outer(x, p * (dp - p @ dp)), "w2": np.outer(p, dpred)}


def compressed(memory: dict, z: np.ndarray):
    """phi(z) of compressed slots, and the map from the cotangent of phi(z) to that of z."""
    s, slope = activate(memory["activation"], z)
    n, scale = normalise(memory["norm"], s, memory["eps"])
    return n, lambda dn: slope * normalise_vjp(memory["norm"], n, scale, dn)


def address(memory: dict, W: Weights, x: np.ndarray) -> np.ndarray:
    """What the first weight multiplies: x, or its features."""
    return features(memory, x, W.get("taylor")) if memory["kind"] == "features" else x


def inputs(memory: dict, W: Weights, x: np.ndarray) -> Weights:
    """What each matrix of the memory is multiplied by on the way from x to M(W, x)."""
    kind = memory["kind"]
    if kind == "matrix":
        return {"w1": x}
    if kind == "mlp":
        return {f"w{i}": h for i, h in enumerate(_mlp_forward(memory, W, x)[1], 1)}
    if kind == "gated_mlp":
        _, gate, _, up, *_ = _gated_forward(memory, W, x)
        return {"w1": x, "w2": gate * up, "w3": x}
    if kind == "slots":
        return {"w1": x, "w2": softmax(memory["scale"] * (x @ _layers(memory, W)[0]))}
    if kind == "features":
        return inputs(memory["inner"], _inner(W), address(memory, W, x))
    return {}


def is_linear(memory: dict) -> bool:
    """Whether M(W, x) = address(x) @ w1."""
    inner = memory.get("inner", memory)
    return inner["kind"] == "matrix" and not inner.get("biases")


def _inner(W: Weights) -> Weights:
    """The weights of the memory behind a feature map."""
    return {name: w for name, w in W.items() if name != "taylor"}


def predict(memory: dict, W: Weights, x: np.ndarray) -> np.ndarray:
    """M(W, x) for one token; x [Dk] -> [Dv]."""
    kind = memory["kind"]
    if kind == "vector":
        return x * _layers(memory, W)[0]
    if kind == "matrix":
        w1, *b1 = _layers(memory, W)
        return x @ w1 + sum(b1)
    if kind == "mlp":
        return _mlp_forward(memory, W, x)[0]
    if kind == "gated_mlp":
        return _gated_forward(memory, W, x)[0]
    if kind == "slots":
        w1, w2 = _layers(memory, W)
        return softmax(memory["scale"] * (x @ w1)) @ w2
    if kind == "compressed_slots":
        w1, w2 = _layers(memory, W)
        return compressed(memory, x @ w1)[0] @ w2
    if kind == "features":
        return predict(memory["inner"], _inner(W), address(memory, W, x))
    raise ValueError(f"oracle: no memory {kind!r}")


def memory_vjp(memory: dict, W: Weights, x: np.ndarray, dpred: np.ndarray) -> Weights:
    """Gradient of <dpred, M(W, x)> with respect to every weight that the memory writes."""
    kind = memory["kind"]
    if kind == "vector":
        return {"w1": x * dpred}
    if kind == "matrix":
        return {"w1": np.outer(x, dpred)} | ({"b1": dpred} if memory.get("biases") else {})
    if kind == "mlp":
        return _mlp_vjp(memory, W, x, dpred)
    if kind == "gated_mlp":
        return _gated_vjp(memory, W, x, dpred)
    if kind == "slots":
        return _slots_vjp(memory, W, x, dpred)
    if kind == "features":
        return memory_vjp(memory["inner"], _inner(W), address(memory, W, x), dpred)
    raise ValueError(f"oracle: no memory {kind!r}")
