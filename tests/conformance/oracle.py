"""Independent oracle of the memory update: NumPy, float64, one token at a time.

Written from the papers' equations with gradients derived by hand, so that it shares no code, no
automatic differentiation and no array library with the package that it checks. It holds the four
parts (memory, attentional bias, retention, algorithm) and `run`, the loop over tokens. The
published recurrences of the named models, each in its paper's own form, live in
`oracle_presets.py`.

Parts are plain dicts with a `kind`; weights multiply from the right, W is [in, out].

Sources: MIRAS arXiv 2504.13173 (equation numbers below are its), Titans 2501.00663, TTT 2407.04620.
"""

import math

import numpy as np

Weights = dict[str, np.ndarray]

_erf = np.vectorize(math.erf, otypes=[np.float64])


# ---- memory: M(W, x) for one token, and the vector-Jacobian product with respect to W ----------


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
    """The normalised vector and the scale that z was divided by; no learned affine map."""
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


def _layers(memory: dict, W: Weights) -> list[np.ndarray]:
    """w1..wn in order."""
    names = [f"w{i + 1}" for i in range(memory.get("depth", 1))]
    if sorted(W) != sorted(names):
        raise ValueError(f"oracle: weights {sorted(W)} given, {names} needed")
    return [W[name] for name in names]


def _forward(memory: dict, W: Weights, x: np.ndarray):
    """M(W, x) with what the backward pass needs: layer inputs, activation slopes, norm, scale."""
    weights = _layers(memory, W)
    inputs, slopes, z = [x], [], x @ weights[0]
    for w in weights[1:]:
        h, slope = activate(memory["activation"], z)
        inputs.append(h)
        slopes.append(slope)
        z = h @ w
    n, scale = normalise(memory["norm"], z, memory.get("eps", 1e-6))
    return (x + n if memory["residual"] else n), inputs, slopes, n, scale


def predict(memory: dict, W: Weights, x: np.ndarray) -> np.ndarray:
    """M(W, x) for one token; x [Dk] -> [Dv]."""
    if memory["kind"] == "vector":
        return x * _layers(memory, W)[0]
    if memory["kind"] == "matrix":
        return x @ _layers(memory, W)[0]
    if memory["kind"] == "mlp":
        return _forward(memory, W, x)[0]
    raise ValueError(f"oracle: no memory {memory['kind']!r}")


def memory_vjp(memory: dict, W: Weights, x: np.ndarray, dpred: np.ndarray) -> Weights:
    """Gradient of <dpred, M(W, x)> with respect to every weight."""
    if memory["kind"] == "vector":
        return {"w1": x * dpred}
    if memory["kind"] == "matrix":
        return {"w1": np.outer(x, dpred)}
    _, inputs, slopes, n, scale = _forward(memory, W, x)
    dz = normalise_vjp(memory["norm"], n, scale, dpred)
    grads = {}
    for i in range(memory["depth"], 0, -1):
        grads[f"w{i}"] = np.outer(inputs[i - 1], dz)
        if i > 1:
            dz = (W[f"w{i}"] @ dz) * slopes[i - 2]
    return grads


# ---- attentional bias: d loss / d prediction ----------------------------------------------------


def residual(bias: dict, pred: np.ndarray, v: np.ndarray, threshold: float = math.nan):
    """d loss / d pred of one token: -v for dot, r = pred - v for l2, and so on.

    The mixture of huber (Yaad, eq. 16) switches between two gradients and has no loss of its own.
    """
    kind, r = bias["kind"], pred - v
    if kind == "dot":
        return -v
    if kind == "l2":
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


# ---- retention: the link from the dual state A to the weight W, of one matrix of one head -------


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


def link(retention: dict, A: np.ndarray) -> np.ndarray:
    """W of A."""
    kind = retention["kind"]
    if kind in ("none", "l2"):
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
    raise ValueError(f"oracle: no retention {kind!r}")


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
    return link(retention, W)


def _axis(retention: dict, x: np.ndarray) -> int:
    return 0 if x.ndim == 1 else retention["axis"]


# ---- the loop over tokens -----------------------------------------------------------------------


def run(
    *, memory: dict, bias: dict, retention: dict, algorithm: dict, order: str = "learn_first",
    W0: Weights, q, k, v, gates: dict[str, np.ndarray], chunk: int, mask=None, segment_ids=None
) -> tuple[np.ndarray, dict[str, Weights]]:  # fmt: skip
    """Reads y [B, T, H, Dv] and the final {"A": ..., "S": ...}, leaves [B, H, in, out].

    q, k [B, T, H, Dk], v [B, T, H, Dv]; gates [B, T, H]: `lr`, and where a part asks for it
    `log_decay`, `log_momentum`, `threshold`; W0 leaves [H, in, out] or [H, D]; mask and
    segment_ids [B, T]. Everything is taken to float64.

    Inner gradients are taken at the snapshot R that the chunk started from, reads come after the
    write. A masked token writes nothing and decays nothing, but takes its place in the chunk.
    Under `gd` the returned S is the last written step.
    """
    if order not in ("learn_first", "decay_first"):
        raise ValueError(f"oracle: no order {order!r}")
    if order == "decay_first" and retention["kind"] not in ("none", "l2"):
        raise ValueError("oracle: decay_first needs retention none or l2")
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    gates = {name: np.asarray(g, np.float64) for name, g in gates.items()}
    B, T, H, _ = q.shape
    mask = np.ones((B, T), bool) if mask is None else np.asarray(mask, bool)
    segments = np.zeros((B, T), int) if segment_ids is None else np.asarray(segment_ids)
    parts = (memory, bias, retention, algorithm, order, chunk)
    y = np.zeros(v.shape)
    final = {
        part: {name: np.zeros((B, *np.shape(w))) for name, w in W0.items()} for part in ("A", "S")
    }
    for b in range(B):
        for h in range(H):
            start = {name: np.asarray(w[h], np.float64) for name, w in W0.items()}
            tokens = {name: g[b, :, h] for name, g in gates.items()}
            y[b, :, h], A, S = _run_head(
                parts, start, q[b, :, h], k[b, :, h], v[b, :, h], tokens, mask[b], segments[b]
            )
            for name in W0:
                final["A"][name][b, h], final["S"][name][b, h] = A[name], S[name]
    return y, final


def _run_head(parts, W0, q, k, v, gates, mask, segments):
    """One sequence and one head: y [T, Dv] and the last A and S."""
    memory, bias, retention, algorithm, order, chunk = parts
    momentum = {"gd": False, "momentum": True}[algorithm["kind"]]
    identity = retention["kind"] in ("none", "l2")
    per_token = not identity and retention["link_every"] == "token"
    A = {name: unlink(retention, w) for name, w in W0.items()}
    S = {name: np.zeros_like(w) for name, w in W0.items()}
    R = L = W0
    pos, y = 0, np.zeros(v.shape)

    def linked(A):
        return {name: link(retention, a) for name, a in A.items()}

    for t in range(len(q)):
        if t > 0 and segments[t] != segments[t - 1]:
            A = {name: unlink(retention, w) for name, w in W0.items()}
            S = {name: np.zeros_like(w) for name, w in W0.items()}
            pos = 0
        if pos == 0:
            R = L = linked(A)
        if mask[t]:
            alpha = 1.0 if retention["kind"] == "none" else math.exp(gates["log_decay"][t])
            mu = math.exp(gates["log_momentum"][t]) if momentum else 0.0
            at = {n: alpha * w for n, w in R.items()} if order == "decay_first" else R
            threshold = gates["threshold"][t] if "threshold" in gates else math.nan
            r = residual(bias, predict(memory, at, k[t]), v[t], threshold)
            g = memory_vjp(memory, at, k[t], r)
            S = {n: mu * S[n] - gates["lr"][t] * g[n] for n in S}
            A = {n: alpha * A[n] + S[n] for n in A}
            L = {n: alpha * L[n] + S[n] for n in L}
        if not identity and not per_token:
            # lq fires at the chunk's end; kl at its first token, the lag token of Memora.
            fires_at = {"lq": chunk - 1, "kl": 0}[retention["kind"]]
            if pos == fires_at:
                L = R = linked(A)
        y[t] = predict(memory, linked(A) if per_token else L, q[t])
        pos = (pos + 1) % chunk
    return y, A, S
