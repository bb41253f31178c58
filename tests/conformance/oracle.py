"""Independent oracle of the memory update: NumPy, float64, one token at a time.

Written from the papers' equations with gradients derived by hand, so that it shares no code, no
automatic differentiation and no array library with the package that it checks. `run` is the loop
over tokens; the parts are in `oracle_memory`, `oracle_bias`, `oracle_retention` and
`oracle_algorithms`. The published recurrences of the named models, each in its paper's own form,
are in `oracle_presets`, `oracle_linear` and `oracle_atlas`, softmax attention in the last.

Parts are plain dicts with a `kind`; weights multiply from the right, W is [in, out].
"""

import dataclasses

import numpy as np

from tests.conformance import oracle_algorithms as algorithms
from tests.conformance import oracle_keys
from tests.conformance import oracle_retention as retentions
from tests.conformance.oracle_algorithms import Memory, Token
from tests.conformance.oracle_bias import Association
from tests.conformance.oracle_memory import Weights, inputs, predict, written


@dataclasses.dataclass(frozen=True)
class Rule:
    """The parts and the semantics of one run."""

    memory: dict
    bias: dict
    retention: dict
    algorithm: dict
    order: str
    read: str
    chunk: int
    refine: int
    average: np.ndarray


def run(
    *, memory: dict, bias: dict, retention: dict, algorithm: dict, order: str = "learn_first",
    read: str = "token", W0: Weights, q, k, v, gates: dict[str, np.ndarray], chunk: int,
    refine: int = 0, exact: bool = False, k_write=None, mask=None, segment_ids=None,
    average=None,
) -> tuple[np.ndarray, dict[str, Weights]]:  # fmt: skip
    """Reads y [B, T, H, Dv] and the final {"A": ..., "S": ..., "V": ...}, leaves [B, H, ...].

    q [B, T, H, Dk]; k, k_write [B, T, H, Dk] and v [B, T, H, Dv], or with an axis R of terms before
    the last; gates [B, T, H], or [B, T, H, D] where they are per channel, or with R, as lr is, for
    terms; W0 leaves [H, in, out] or [H, D]; mask and segment_ids [B, T].

    Inner gradients are taken at the snapshot R that the chunk started from, reads come after the
    write, or are of the snapshot. A masked token is not there, and reads 0. `exact` is chunk=1.
    With `refine` n, sweep i = 1..n takes token t's gradient at the weights that sweep i - 1 had
    before t; the last sweep is the memory, and all start from it at a chunk's beginning. Under
    newton A holds G ("w1") and H. An algorithm with `averaged` keeps the sum S of a chunk's
    steps, and A_t = R + r_i S_t at position i, r = `average` [C], 1 / (1 + i) by default.
    """
    if order not in ("learn_first", "decay_first") or read not in ("token", "snapshot"):
        raise ValueError(f"oracle: no order {order!r} or no read {read!r}")
    if order == "decay_first" and retention["kind"] not in ("none", "l2", "trapezoidal"):
        raise ValueError("oracle: decay_first needs a linear retention")
    chunk = 1 if exact else chunk
    average = 1.0 / np.arange(1, chunk + 1) if average is None else np.asarray(average)
    rule = Rule(memory, bias, retention, algorithm, order, read, chunk, refine, average)
    B, T, H, _ = np.shape(q)
    mask = np.ones((B, T), bool) if mask is None else np.asarray(mask, bool)
    segments = np.zeros((B, T), int) if segment_ids is None else np.asarray(segment_ids)
    streams = {"q": q, "k": k, "v": v} | ({} if k_write is None else {"k_write": k_write})
    streams = {n: np.asarray(x, np.float64) for n, x in streams.items()}
    gates = {n: np.asarray(g, np.float64) for n, g in gates.items()}
    y, final = np.zeros((B, T, H, np.shape(v)[-1])), {}
    for b, h in np.ndindex(B, H):
        start = {name: np.asarray(w[h], np.float64) for name, w in W0.items()}
        one = {n: x[b, :, h] for n, x in streams.items()}
        tokens = [_token(rule, start, one, gates, (b, t, h)) for t in range(T)]
        own = np.flatnonzero(mask[b])
        written = oracle_keys.mapped(
            retention, bias, algorithm, [tokens[t] for t in own], segments[b, own]
        )
        y[b, own, h], end = _run_head(rule, start, one["q"][own], written, segments[b, own])
        for part in "ASV":
            for name, leaf in getattr(end, part).items():
                whole = final.setdefault(part, {})
                whole.setdefault(name, np.zeros((B, H, *leaf.shape)))[b, h] = leaf
    return y, final


def _token(rule: Rule, W: Weights, streams: dict, gates: dict, at: tuple) -> Token:
    """One head's token, gates worked out."""
    own = retentions.effective(rule.retention, {name: g[at] for name, g in gates.items()})
    t = at[1]
    k, v, lr = streams["k"][t], streams["v"][t], own["lr"]
    k_write = streams["k_write"][t] if "k_write" in streams else None
    if rule.retention.get("tied"):  # HGRN2 (2404.07904), equation 9
        k = 1.0 - np.exp(own["log_decay"])
    several = k.ndim == 2
    steps = rule.algorithm.get("steps", 1) if rule.algorithm["kind"] == "multi_step" else 1
    terms = []
    for j in range(len(k) if several else steps):
        key, value, rate, along = (
            x[j] if several and x is not None else x for x in (k, v, lr, k_write)
        )
        if np.ndim(rate):
            side = rule.algorithm["granularity"]
            rate = {"key": rate[:, None], "value": rate[None, :]}[side]
        terms.append(Association(key, value, along, rate))
    return Token(tuple(terms), own)


def _run_head(rule: Rule, W0: Weights, q, tokens: list[Token], segments):
    """One sequence and one head: y [T, Dv] and the last memory."""
    retention, algorithm, chunk = rule.retention, rule.algorithm, rule.chunk
    fixed = {name: w for name, w in W0.items() if name not in written(W0)}
    newton = algorithm["kind"] == "newton"
    window = algorithm.get("window", 1)
    every = retentions.map_every(retention)
    linear_reads = every == "chunk" and not retentions.is_proximal(retention)
    averaged = algorithm.get("averaged", False)
    per_chunk = algorithms.acts_per_chunk(algorithm)
    restarts = averaged or (per_chunk and algorithm["momentum"] is None)

    def primal(A: Weights) -> Weights:
        if newton:
            return algorithms.newton_weight(A, algorithm["ridge"])
        return _linked(retention, A)

    def begin() -> Memory:
        W = written(W0)
        if newton:
            A = algorithms.newton_start(W, algorithm["ridge"])
        elif retentions.is_proximal(retention):
            A = W
        else:
            A = {name: retentions.unlink(retention, w) for name, w in W.items()}
        return Memory(A, _zeros(A), _zeros(A))

    now, recent, pos = begin(), [], 0
    y = np.zeros((len(q), tokens[0].terms[0].v.shape[-1]))
    R = L = primal(now.A)
    sweeps: list[Memory] = []
    for t, token in enumerate(tokens):
        if t > 0 and segments[t] != segments[t - 1]:
            now, recent, pos = begin(), [], 0
        if pos == 0:
            if restarts:
                now = dataclasses.replace(now, S=_zeros(now.S))
            R = L = primal(now.A)
            sweeps = [now] * (rule.refine + 1)
        snapshot = R
        recent = [*recent, token][-window:]
        at, moved = R, []
        for before in sweeps:
            after, steps = _learn(rule, fixed, before, at, recent)
            if averaged:
                S = {n: before.S[n] + U for n, U in steps.items()}
                A = {n: R[n] + rule.average[pos] * S[n] for n in S}
                after = Memory(A, S, before.V)
            moved.append(after)
            at = primal(before.A)
            if linear_reads:
                L = _linear(rule, L, steps, token)
        sweeps = moved
        now = sweeps[-1]
        if pos == chunk - 1 and algorithms.acts_per_chunk(algorithm):
            now = _act(algorithm, now, token)
        if pos == chunk - 1 and every == "chunk" and retentions.is_proximal(retention):
            near = {n: retentions.prox(retention, a, R[n], token.gates) for n, a in now.A.items()}
            now = dataclasses.replace(now, A=near)
        # A link once a chunk fires at its last token, kl's at its first, the lag token of Memora.
        if linear_reads and pos == (0 if retention["kind"] == "kl" else chunk - 1):
            L = R = primal(now.A)
        sweeps[-1] = now
        W = {"snapshot": snapshot, "token": L if linear_reads else primal(now.A)}[rule.read]
        y[t] = predict(rule.memory, W | fixed, q[t])
        pos = (pos + 1) % chunk
    return y, now


def _learn(rule: Rule, fixed: Weights, before: Memory, at: Weights, recent: list[Token]):
    """The memory after a token whose gradient is taken at `at`, and the steps U."""
    token = recent[-1]
    alpha = retentions.decays(rule.memory, rule.retention, token.gates, at)
    if rule.algorithm["kind"] == "newton":
        scalar = float(alpha["w1"])
        A = algorithms.newton_step(before.A, fixed, rule.memory, scalar, token)
        return dataclasses.replace(before, A=A), {}
    if rule.order == "decay_first":
        at = {name: alpha[name] * w for name, w in at.items()}
    G = algorithms.learned(rule.memory, rule.bias, rule.algorithm, at | fixed, recent)
    A, S, V, U = {}, {}, {}, {}
    past = before.A
    if rule.order == "decay_first":
        past = {name: alpha[name] * a for name, a in past.items()}
    x = inputs(rule.memory, at | fixed, token.terms[0].k)
    erased = algorithms.erased(rule.algorithm, past, x, token)
    for name, a in before.A.items():
        S[name], V[name], U[name] = algorithms.step(
            rule.algorithm, before.S[name], before.V[name], G[name], token
        )
        A[name] = alpha[name] * a + U[name] - erased.get(name, 0.0)
        per_token = retentions.map_every(rule.retention) == "token"
        if per_token and retentions.is_proximal(rule.retention):
            A[name] = retentions.prox(rule.retention, A[name], a, token.gates)
    return Memory(A, S, V), U


def _linear(rule: Rule, L: Weights, U: Weights, token: Token) -> Weights:
    """What reads see between two links: L_t = alpha_t L_{t-1} + U_t."""
    alpha = retentions.decays(rule.memory, rule.retention, token.gates, L)
    return {name: alpha[name] * w + U[name] for name, w in L.items()}


def _act(algorithm: dict, now: Memory, token: Token) -> Memory:
    """The step at a chunk's end: A - f T(S), with the last token's f."""
    f = token.terms[0].rate if algorithms.rate_scales_update(algorithm) else 1.0
    A, V = {}, {}
    for name, a in now.A.items():
        S = now.S[name]
        T, V[name] = algorithms.transformed(algorithm, S, now.V[name], S)
        A[name] = a - f * T
    return Memory(A, now.S, V)


def _linked(retention: dict, A: Weights) -> Weights:
    if retentions.is_proximal(retention):
        return A
    return {name: retentions.link(retention, a) for name, a in A.items()}


def _zeros(W: Weights) -> Weights:
    return {name: np.zeros_like(w) for name, w in W.items()}
