"""Independent oracle of TNT: NumPy, float64, token by token.

Written from arXiv 2511.07343; it shares no code with the package. The update of one memory is that
of `tests.conformance.oracle`. Parameters come as the nested dict that a layer's are.
"""

import numpy as np

from tests.conformance import oracle
from tests.models.oracle_titans import l2_norm, rms_norm, sigmoid, silu

SQUASH = {
    "lr": lambda z, most: most * sigmoid(z),
    "log_decay": lambda z, _: np.log(sigmoid(z)),
    "log_momentum": lambda z, _: np.log(sigmoid(z)),
    "threshold": lambda z, _: np.log1p(np.exp(z)),
}


def convolved(p, x, activation):
    """[T, width] to [T, streams, H, D]: linear, y_t = sum_j taps_j z_{t-j}, activation."""
    taps, z = p["conv"]["kernel"], np.tensordot(x, p["linear"]["kernel"], axes=1)
    y = np.zeros_like(z)
    for t, j in np.ndindex(len(z), len(taps)):
        if t >= j:
            y[t] += taps[j] * z[t - j]
    return activation(y)


def memory(p, parts, q, k, v, x, *, chunk, max_lr, read):
    """Reads [T, H, D] of one memory from its learned start, with gates from x."""
    made = p["gates"]
    gates = {
        name: SQUASH[name](x @ made["kernels"][name]["kernel"] + made["biases"][name], max_lr)[None]
        for name in made["kernels"]
    }
    streams = {"q": q[None], "k": k[None], "v": v[None]}
    return oracle.run(
        **parts, W0=p["initial"], **streams, gates=gates, chunk=chunk, read=read
    )[0][0]  # fmt: skip


def projected(q, k):
    """P_t q_t of one shard, P_t = sum_{r <= t} k_r k_r^T / |k_r|^2; [T, H, D]."""
    y = np.zeros_like(q)
    for h in range(q.shape[1]):
        P = np.zeros((q.shape[-1],) * 2)
        for t in range(len(q)):
            P = P + np.outer(k[t, h], k[t, h]) / (k[t, h] @ k[t, h])
            y[t, h] = P @ q[t, h]
    return y


def sums(p, parts, q, k, v, x, *, max_lr, global_chunk, local_chunks, shard, projection=True):
    """V(q_t) + sum_i W_i(P_t q_t) of one document, [T, H, D]."""
    y = memory(p["document"], parts, q, k, v, x, chunk=global_chunk, max_lr=max_lr, read="snapshot")
    for first in range(0, len(x), shard):
        own = slice(first, first + shard)
        at = projected(q[own], k[own]) if projection else q[own]
        for n, chunk in enumerate(local_chunks):
            y[own] += memory(
                p["shard"]["each"][n], parts, at, k[own], v[own], x[own],
                chunk=chunk, max_lr=max_lr, read="token",
            )  # fmt: skip
    return y


def layer(p, x, parts, *, activation=silu, **options):
    """TNT between projections, norm, gate and projection; x [T, width] is one document."""
    mixed = convolved(p["qkv"], x, activation)
    q, k, v = l2_norm(mixed[:, 0]), l2_norm(mixed[:, 1]), mixed[:, 2]
    y = sums(p["fast"], parts, q, k, v, x, **options)
    y = rms_norm(p["norm"], y, eps=1e-3).reshape(len(x), -1)
    return (y * silu(x @ p["gate"]["kernel"])) @ p["out"]["kernel"]
