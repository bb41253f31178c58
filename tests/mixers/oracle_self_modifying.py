"""Independent oracle of self-modifying memories: NumPy, float64, token by token (2512.24695).

Every memory is a dict of weights of one head. One sequence; delta gradient descent on the squared
error, with the gradient taken at the chunk's start and the product with alpha I - r x^T x applied
to the weights after the token before.
"""

import numpy as np

from tests.conformance.oracle_memory import inputs, memory_vjp, predict
from tests.models.oracle_titans import l2_norm, sigmoid

KINDS = ("k", "v", "eta", "alpha")


def convolved(taps, z):
    """y_t = sum_j taps_j z_{t-j}."""
    return np.stack(
        [sum(taps[j] * z[t - j] for j in range(min(len(taps), t + 1))) for t in range(len(z))]
    )


def reads(p, x, *, memory, chunk, span, static=(), self_values=True, max_lr=1.0, form="gradient"):
    """M_mem(q_t) before the write, [T, H, D], of tokens x [T, width]."""
    made = [name for name in KINDS if name not in static]
    mixed = np.tensordot(x, p["qkv"]["linear"]["kernel"], axes=1)
    mixed = convolved(p["qkv"]["conv"]["kernel"], mixed)
    T, _, H, D = mixed.shape
    q = l2_norm(mixed[:, 0])
    fixed = {n: mixed[:, 1 + i] for i, n in enumerate(n for n in ("k", "v") if n in static)}
    u = l2_norm(convolved(p["conv"]["kernel"], x.reshape(T, H, D))) if made else None

    def weights(leaves, at):
        return {name: w[at] for name, w in leaves.items()}

    now = {("mem", h): weights(p["fast"]["initial"], h) for h in range(H)}
    for n, name in enumerate(made):
        now |= {(name, h): weights(p["made"]["initial"], n * H + h) for h in range(H)}
    start, y = dict(now), np.zeros((T, H, D))
    for t in range(T):
        for who in now:
            if t % (chunk if who[0] == "mem" else span) == 0:
                start[who] = now[who]

        def answers(name, t=t):
            return np.stack([predict(memory, start[name, h], u[t, h]) for h in range(H)])

        k = l2_norm(fixed["k"][t] if "k" in fixed else answers("k"))
        v = fixed["v"][t] if "v" in fixed else answers("v")
        logits = {}
        for name, gate in (("eta", "lr"), ("alpha", "log_decay")):
            source = answers(name).reshape(-1) if name in made else x[t]
            gates = p["fast"]["gates"]
            logits[name] = source @ gates["kernels"][gate]["kernel"] + gates["biases"][gate]
        eta, alpha = max_lr * sigmoid(logits["eta"]), sigmoid(logits["alpha"])
        for who in now:
            h = who[1]
            target = predict(memory, start[who], l2_norm(v[h])) if self_values else v[h]
            if who[0] == "mem":
                y[t, h] = predict(memory, start[who], q[t, h])
            e = predict(memory, start[who], k[h]) - target
            gradient = memory_vjp(memory, start[who], k[h], e)
            rates = {
                "gradient": (eta[h], eta[h]),
                "proximal": (eta[h] / (1 + eta[h]),) * 2,
                "projection": (1.0, eta[h]),
            }[form]
            after = {}
            for leaf, x_in in inputs(memory, start[who], k[h]).items():
                W = now[who][leaf]
                unit = x_in / max(1.0, np.sqrt(x_in @ x_in))
                erased = rates[0] * np.outer(unit, unit @ W)
                after[leaf] = alpha[h] * W - erased - rates[1] * gradient[leaf]
            now[who] = after
    return y
