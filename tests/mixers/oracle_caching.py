"""Independent oracle of memory caching: NumPy, float64, token by token (arXiv 2602.24281).

The base rule is that of `tests.conformance.oracle`. Memories at the ends of segments are its final
states on the tokens up to there. One sequence, all heads; weights have leaves [H, in, out].
"""

import numpy as np

from tests.conformance import oracle
from tests.conformance.oracle_memory import predict, softmax


def states(parts, W0, streams, gates, chunk, first, last):
    """Reads and weights of the base rule over tokens [first, last), from weights W0."""
    now = slice(first, last)
    y, end = oracle.run(
        **parts,
        W0=W0,
        **{name: z[None, now] for name, z in streams.items()},
        gates={name: g[None, now] for name, g in gates.items()},
        chunk=chunk,
    )
    return y[0], {name: w[0] for name, w in end["A"].items()}


def blocks(n, how, most):
    """The entries that a token after n segments sees, and how many segments each is of."""
    if how == "constant":
        return [(e, 1) for e in range(1, n + 1)][-most:]
    found, rest, e = [], n, 0
    while rest:  # the largest power of two that is left
        size = 2 ** (rest.bit_length() - 1)
        e, rest = e + size, rest - size
        found.append((e, size))
    return found


def caching(
    parts, W0, streams, gates, u, *, chunk, combine, segment, max_segments=16,
    segmentation="constant", start="chained", top_k=4, softmax_over="selected",
):  # fmt: skip
    """y [T, H, Dv] of streams q, k, v [T, H, D], gates [T, H] and u = x W_u [T, H, Dk]."""
    q, k = streams["q"], streams["k"]
    T, H, _ = q.shape

    def after(last):
        """Reads and weights after `last` tokens: of the document, or of their segment alone."""
        first = 0 if start == "chained" else (last - 1) // segment * segment
        return states(parts, W0, streams, gates, chunk, first, last)

    y = np.zeros(streams["v"].shape)
    ends = {e: after(e * segment)[1] for e in range(1, T // segment + 1)}
    for t in range(T):
        seen = blocks(t // segment, segmentation, max_segments)
        begin = t // segment * segment
        own, weights = after(t + 1)
        for h in range(H):
            every = [{n: w[h] for n, w in W.items()} for W in [ends[e] for e, _ in seen]]
            reads = [predict(parts["memory"], W, q[t, h]) for W in every] + [own[-1, h]]
            if combine == "residual":
                y[t, h] = sum(reads)
                continue
            means = [k[(e - size) * segment : e * segment, h].mean(0) for e, size in seen]
            means.append(k[begin : t + 1, h].mean(0))
            scores = np.array([u[t, h] @ m for m in means])
            share = softmax(scores)
            if combine == "sparse":
                drop = np.argsort(-scores[:-1])[top_k:]
                if softmax_over == "selected":
                    scores[drop] = -np.inf
                    share = softmax(scores)
                share[drop] = 0.0
            if combine == "soup":
                every.append({n: w[h] for n, w in weights.items()})
                mean = {n: sum(s * W[n] for s, W in zip(share, every)) for n in every[0]}
                y[t, h] = predict(parts["memory"], mean, q[t, h])
            else:
                y[t, h] = sum(s * r for s, r in zip(share, reads))
    return y
