"""Independent oracle of layers and blocks: NumPy, float64, token by token.

Written from the equations of Titans (arXiv 2501.00663, sections 3 and 4) and Llama's block; it
shares no code with the package. The memory's update is that of `tests.conformance.oracle`.
Parameters come as the nested dict that a module's are, weights multiply from the right.
"""

import numpy as np

from tests.conformance import oracle
from tests.conformance.oracle_memory import predict, softmax

PARTS = {
    "memory": {"kind": "mlp", "depth": 2, "expansion": 4, "activation": "gelu", "residual": True,
               "norm": "layer", "eps": 0.1},
    "bias": {"kind": "l2"},
    "retention": {"kind": "l2", "granularity": "head"},
    "algorithm": {"kind": "momentum"},
}  # fmt: skip


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


def silu(x):
    return x * sigmoid(x)


def rms_norm(p, x, eps=1e-6):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * p["scale"]


def l2_norm(x):
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def swiglu(p, x):
    gate, up, down = (p[name]["kernel"] for name in ("gate", "up", "down"))
    return (silu(x @ gate) * (x @ up)) @ down


def projected(p, x):
    """[T, width] to [T, streams, H, D]: linear, causal depthwise convolution, SiLU."""
    z = np.tensordot(x, p["linear"]["kernel"], axes=1)
    taps = p["conv"]["kernel"]
    y = np.zeros_like(z)
    for t in range(len(z)):
        for lag in range(min(len(taps), t + 1)):
            y[t] += taps[lag] * z[t - lag]
    return silu(y)


def gates(p, x, max_lr):
    """Titans' theta, alpha and eta as rates and logs, each [T, H]."""
    logit = {n: x @ p["kernels"][n]["kernel"] + p["biases"][n] for n in p["kernels"]}
    return {
        "lr": max_lr * sigmoid(logit["lr"]),
        "log_decay": np.log(sigmoid(logit["log_decay"])),
        "log_momentum": np.log(sigmoid(logit["log_momentum"])),
    }


def written(p, q, k, v, x, chunk, max_lr):
    """The memory's reads [T, H, D] and its weights after each head's last token."""
    made = gates(p["gates"], x, max_lr)
    streams = (z[None] for z in (q, k, v))
    y, last = oracle.run(
        **PARTS, W0=p["initial"], q=next(streams), k=next(streams), v=next(streams),
        gates={n: g[None] for n, g in made.items()}, chunk=chunk,
    )  # fmt: skip
    return y[0], {name: leaf[0] for name, leaf in last["A"].items()}


def lmm(p, x, *, chunk, max_lr):
    """The memory alone: o = M(x), as a layer with output norm, gate and projection."""
    mixed = projected(p["qkv"], x)
    q, k, v = l2_norm(mixed[:, 0]), l2_norm(mixed[:, 1]), mixed[:, 2]
    y, _ = written(p["fast"], q, k, v, x, chunk, max_lr)
    y = rms_norm(p["norm"], y, eps=1e-3).reshape(len(x), -1)
    return (y * silu(x @ p["gate"]["kernel"])) @ p["out"]["kernel"]


def rope(x, at, base=10000.0):
    """Pairs (i, i + D/2) of x [H, D] turned by at * base^(-2 i / D)."""
    half = x.shape[-1] // 2
    angle = at * base ** (-2 * np.arange(half) / (2 * half))
    a, b = x[..., :half], x[..., half:]
    turned = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
    return np.concatenate(turned, axis=-1)


def window_attention(p, x, window):
    """SWAttn([p || x]): each token sees persistent tokens, which have no place, and a window."""
    qkv = np.tensordot(x, p["qkv"]["linear"]["kernel"], axes=1)
    heads, width = qkv.shape[2:]
    front = p.get("fast", {}).get("initial", {})
    y = np.zeros((len(x), heads, width))
    for t in range(len(x)):
        seen = range(max(0, t - window + 1), t + 1)
        for h in range(heads):
            q = qkv[t, 0, h]
            scores = [rope(q, t) @ rope(qkv[s, 1, h], s) for s in seen]
            values = [qkv[s, 2, h] for s in seen]
            if front:
                scores = [q @ k for k in front["k"][h]] + scores
                values = [*front["v"][h], *values]
            y[t, h] = softmax(np.array(scores) / np.sqrt(width)) @ np.array(values)
    return y.reshape(len(x), -1) @ p["out"]["kernel"]


def gated(p, y, m):
    return rms_norm(p["of_y"], y) * sigmoid(rms_norm(p["of_m"], m))


def mag(p, x, *, chunk, max_lr, window, **_):
    """Equations 26 to 28."""
    m = lmm(p["memory"], x, chunk=chunk, max_lr=max_lr)
    return gated(p["gating"], window_attention(p["attention"], x, window), m)


def mal(p, x, *, chunk, max_lr, window, **_):
    """Equations 29 to 31."""
    m = lmm(p["memory"], x, chunk=chunk, max_lr=max_lr)
    return window_attention(p["attention"], m, window)


def mac(p, x, *, chunk, max_lr, segment, window, **_):
    """Equations 21 to 25, segment by segment; the memory is written from the start for each."""
    fast, length = p["fast"], len(x)
    initial = fast["initial"]
    heads, width = initial["w1"].shape[:2]
    front = p.get("persistent", {})
    count = len(front["k"][0]) if front else 0
    queries = l2_norm(projected(p["query"], x)[:, 0])
    y, o = np.zeros_like(x), np.zeros_like(x)
    weights = initial
    for begin in range(0, length, segment):
        tokens = range(begin, min(begin + segment, length))
        h = np.zeros((length, heads, width))
        for t in tokens:  # (21), with the memory before the segment
            for n in range(heads):
                W = {name: leaf[n] for name, leaf in weights.items()}
                h[t, n] = predict(PARTS["memory"], W, queries[t, n])
        recalled = rms_norm(p["recalled"], h.reshape(length, -1))
        for t in tokens:  # (22, 23): [p || h || S] up to the token's own place
            out = np.zeros((heads, width))
            q = np.tensordot(x[t], p["q"]["kernel"], axes=1)
            for n in range(heads):
                scores, values = [], []
                query = rope(q[n], count + segment + t - begin)
                for s in range(count):
                    scores.append(query @ rope(front["k"][n, s], s))
                    values.append(front["v"][n, s])
                for part, offset in ((recalled, count), (x, count + segment)):
                    for s in range(max(begin, t - window + 1), t + 1):
                        k, v = np.tensordot(part[s], p["kv"]["kernel"], axes=1)[:, n]
                        scores.append(query @ rope(k, offset + s - begin))
                        values.append(v)
                out[n] = softmax(np.array(scores) / np.sqrt(width)) @ np.array(values)
            y[t] = out.reshape(-1) @ p["out"]["kernel"]
        so_far = y[: tokens[-1] + 1]
        mixed = projected(p["write"], so_far)
        k, v = l2_norm(mixed[:, 0]), mixed[:, 1]
        own = l2_norm(so_far.reshape(len(so_far), heads, width))
        m, weights = written(fast, own, k, v, so_far, chunk, max_lr)  # (24)
        o[begin : tokens[-1] + 1] = gated(  # (25)
            p["gating"], so_far[begin:], m[begin:].reshape(len(tokens), -1)
        )
    return o


def block(p, x, layer, **options):
    """x + layer(norm(x)), then x + SwiGLU(norm(x))."""
    x = x + layer(p["mixer"], rms_norm(p["mixer_norm"], x), **options)
    return x + swiglu(p["mlp"], rms_norm(p["mlp_norm"], x))
