"""The reference backend: one token at a time, plain gradients, weights formed at every step.

Slow and simple; the oracle for every other backend. It shares the parts with them, and it shares
gates, decays and positions with the engine, but none of its factored gradients, coefficients or
tiles.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.backends.base import Alignment, Backend, ScanInputs, ScanResult, Supports
from miras.engine.decay import decay_of
from miras.engine.iterate import Iterate
from miras.engine.layout import positions
from miras.engine.readers import FixedWeightsReader, apply
from miras.engine.state import State, initial_state, split_fixed
from miras.engine.systems import inverse_positive
from miras.engine.tokens import Tokens, Window, tokens_of
from miras.engine.trajectory import dual_start
from miras.parts.association import Buffers
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


class Reference(Backend):
    """Token by token, in the dtype of the step; keeps one state a token for the backward pass."""

    @property
    def supports(self) -> Supports:
        """All but a `Precision` other than the default: the oracle does not round."""
        return Supports(precision=False)

    def plan(self, rule, inputs, options, alignment) -> None:
        """Every call runs, wherever segments begin, whatever `save_every` says."""

    def run(
        self,
        rule: Rule,
        inputs: ScanInputs,
        options: ScanOptions,
        alignment: Alignment,
        plan: None,
    ) -> ScanResult:
        """All tokens, one by one."""
        return scan_tokens(rule, inputs, options)


def scan_tokens(rule: Rule, inputs: ScanInputs, options: ScanOptions) -> ScanResult:
    """All tokens, one by one."""
    W0, q, k, v, given, k_write, state, segment_ids, mask, average = inputs
    gates, chunk = dict(given or {}), options.chunk
    batch, length = q.shape[:2]
    dtype = jnp.promote_types(jnp.float32, q.dtype)
    cast = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)  # noqa: E731
    fast, fixed = split_fixed(rule, cast(W0))
    start = state
    if start is None:
        widths = k.shape[-1], v.shape[-1]
        kept = {"refine": options.refine, "dtype": dtype, "terms": inputs.terms}
        start = initial_state(rule, W0, batch, *widths, **kept)
    if options.exact or rule.algorithm.online:  # online: chunks are counted from here
        start = start.replace(position=jnp.zeros_like(start.position))
    at = positions(segment_ids, start.position, start.segment, length, chunk, mask)
    own = jnp.ones((batch, length), bool) if mask is None else mask
    segment_start = dual_start(rule, fast)
    if average is not None:
        rows = average.astype(dtype)[at.position]
        gates = {**gates, "average": jnp.repeat(rows[..., None], q.shape[2], axis=-1)}

    one_head = functools.partial(_token, rule, options)

    def if_there(fixed, segment_start, memory, streams, own, reset, position):
        after = one_head(fixed, segment_start, memory, streams, reset, position)
        nothing = memory, jax.tree.map(jnp.zeros_like, after[1])
        return _choose(own, after, nothing)

    over_heads = jax.vmap(if_there, in_axes=(0, 0, 0, 0, None, None, None))
    over_rows = jax.vmap(over_heads, in_axes=(None, None, 0, 0, 0, 0, 0))

    def token(memory, xs):
        return over_rows(fixed, segment_start, memory, *xs)

    streams = (cast((q, k, v, k_write, gates)), own, at.reset, at.position)
    by_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), streams)
    memory, (y, loss) = jax.lax.scan(token, start.of_heads(), by_time)
    y, loss = jnp.moveaxis(y, 0, 1), jnp.moveaxis(loss, 0, 1)
    end_position = at.end_position
    if mask is not None and state is not None:
        end_position = jnp.where(jnp.any(mask, axis=1), end_position, state.position)
    end = memory.replace(position=end_position, segment=at.end_segment)
    return ScanResult(y.astype(q.dtype), end, loss)


@dataclasses.dataclass
class TokenBuffers(Buffers):
    """The buffers at one token, by their definition.

    Attributes:
        now: by name [...]: before the token, and once its part has used a buffer, after it.
    """

    now: dict[str, Array]

    def decayed_sum(self, name: str, log_decay: Array | None, x: Array) -> Array:
        """exp(log_decay) B + x."""
        alpha = 1.0 if log_decay is None else jnp.exp(log_decay[0])
        self.now = {**self.now, name: alpha * self.now[name] + x[0]}
        return self.now[name][None]

    def previous(self, name: str, x: Array) -> Array:
        """What the token before has left."""
        before = self.now[name]
        self.now = {**self.now, name: x[0]}
        return before[None]


def _choose(condition: Array, new, old):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def _token(rule, options, fixed, segment_start, memory: State, streams, reset, position):
    """One token of one head: the memory after it, and (y, loss)."""
    q, k, v, k_write, gates = jax.tree.map(lambda x: x[None], streams)
    buffers = TokenBuffers(_choose(reset, _zeros(memory.carried), memory.carried) or {})
    tokens = tokens_of(rule, fixed, k, v, k_write, gates, jnp.ones(1, q.dtype), buffers)
    memory = memory.replace(carried=buffers.now or None)
    retention, algorithm = rule.retention, rule.algorithm

    A = _choose(reset, segment_start, memory.A)
    S, V = _choose(reset, _zeros(memory.S), memory.S), _choose(reset, _zeros(memory.V), memory.V)
    window = memory.window
    if window is not None:
        window = window._replace(weight=jnp.where(reset, 0.0, window.weight))
    is_first, is_last = position == 0, position == options.chunk - 1
    if algorithm.restarts:
        S = _choose(is_first, _zeros(S), S)
    R = _choose(is_first, _link(rule, A), memory.R)
    L = None if memory.L is None else _choose(is_first, _link(rule, A), memory.L)
    sweeps = tuple(_choose(is_first, Iterate(A, S, V), sweep) for sweep in memory.sweeps)

    if algorithm.least_squares is not None:
        A, y, loss = _least_squares(rule, fixed, A, R, tokens, q)
        after = memory.replace(A=A, S=S, V=V, R=R, L=L, window=window, sweeps=sweeps)
        return after, (y, loss)

    now = None if window is None else _pushed(window, tokens)
    at = _link(rule, A) if options.exact else R
    begin, snapshot = Iterate(A, S, V), R
    moved: list[Iterate] = []
    loss: Array | float = 0.0
    G: Weights = {}
    for before in (*sweeps, begin):
        G, loss = _gradient(rule, fixed, at, tokens, now)
        erased = _erased(rule, fixed, at, before, tokens)
        moved.append(_advance(rule, before, G, tokens, R, erased))
        at = _link(rule, before.A)  # where the next sweep takes its gradient
    A, S, V = moved.pop()
    if L is not None:
        L = _advance(rule, begin._replace(A=L), G, tokens, R).A
        fires = position == 0 if retention.lag else is_last
        R, L = _choose(fires, _link(rule, A), R), _choose(fires, _link(rule, A), L)
    if algorithm.acts == "chunk":
        assert S is not None
        own = {name: gate[0] for name, gate in tokens.for_steps.items()}
        for name in A:
            U, second = algorithm.transform(S[name], None if V is None else V[name], own)
            A = {**A, name: jnp.where(is_last, A[name] + U, A[name])}
            if V is not None:
                V = {**V, name: jnp.where(is_last, second, V[name])}
    if retention.proximal and retention.linked == "chunk":
        last = {name: gate[0] for name, gate in tokens.gates.items()}
        near = {n: retention.prox(leaf, R[n], last) for n, leaf in A.items()}
        A = _choose(is_last, near, A)
    W = _link(rule, A) if L is None else L
    W = snapshot if rule.read == "snapshot" else W
    own = rule.memory.own_gates(tokens.gates)
    y = apply(rule.memory, FixedWeightsReader(W, fixed, gates=own), q)[0]
    window = jax.tree.map(lambda x: x[1:], now)
    after = memory.replace(A=A, S=S, V=V, R=R, L=L, window=window, sweeps=tuple(moved))
    return after, (y, loss)


def _link(rule: Rule, A: Weights) -> Weights:
    if rule.retention.proximal:
        return A
    return {name: rule.retention.link(leaf) for name, leaf in A.items()}


def _decay(rule: Rule, tokens: Tokens, W: Weights) -> Weights:
    """alpha_t * W."""
    decayed = {}
    for name, leaf in W.items():
        factor = decay_of(rule.memory, name, tokens.log_decays).factor(leaf.ndim)
        decayed[name] = leaf * factor[0]
    return decayed


def _gradient(rule: Rule, fixed, at: Weights, tokens: Tokens, window: Window | None):
    """The token's gradient, scaled by eta where it scales gradients, and its loss."""
    if rule.order == "decay_first":
        at = _decay(rule, tokens, at)
    if window is not None:
        each = [
            _one(rule, fixed, at, k, None, v, {name: x[i] for name, x in window.gates.items()})
            for i, (k, v) in enumerate(zip(window.k, window.v))
        ]
        total = {name: jnp.zeros_like(leaf) for name, leaf in at.items()}
        for weight, (g, _) in zip(window.weight, each):
            total = {name: total[name] + weight * g[name] for name in at}
        if rule.algorithm.lr_at == "gradient":
            assert rule.rate is not None
            rate = tokens.gates[rule.rate.name][0]
            total = {name: rate * leaf for name, leaf in total.items()}
        return total, each[-1][1]
    total, loss = {name: jnp.zeros_like(leaf) for name, leaf in at.items()}, 0.0
    gates = {name: x[0] for name, x in tokens.for_gradients.items()}
    for term in tokens.terms:
        here = at
        if rule.algorithm.sequential:
            here = jax.tree.map(jnp.subtract, at, total)
        g, term_loss = _one(rule, fixed, here, term.k[0], term.k_write, term.v[0], gates)
        if rule.memory.associates:
            own = rule.memory.own_gates(tokens.for_gradients)
            pairs = rule.memory.associations(term.k, term.v, own, tokens.log_decays)
            g = {name: -jnp.outer(x[0], e[0]) for name, (x, e) in pairs.items()}
        rate = term.rate[0]
        g = {name: rate * leaf if rate.shape[0] > 1 else rate[0] * leaf for name, leaf in g.items()}
        if term.rate_in is not None:
            g = {name: term.rate_in[0][:, None] * leaf for name, leaf in g.items()}
        total = jax.tree.map(jnp.add, total, g)
        loss = loss + term_loss
    return total, loss


def _one(rule: Rule, fixed, at: Weights, k, k_write, v, gates):
    """The gradient of one association at given weights, and its loss."""
    gates = {name: x[None] for name, x in gates.items()}
    of_bias, of_memory = rule.bias.own_gates(gates), rule.memory.own_gates(gates)

    def fits(W: Weights, x: Array):
        reader = FixedWeightsReader(W, fixed, gates=of_memory)
        found = rule.memory.fits(reader, x[None, :], v[None])
        return tuple(fit.pred for fit in found), found

    _, vjp, found = jax.vjp(lambda W: fits(W, k), at, has_aux=True)
    residual = tuple(rule.bias.residual(*fit, of_bias) for fit in found)
    if k_write is not None:  # the same error, written along another key
        _, vjp, _ = jax.vjp(lambda W: fits(W, k_write[0]), at, has_aux=True)
    (g,) = vjp(residual)
    return g, sum(rule.bias.loss(*fit, of_bias)[0] for fit in found)


@dataclasses.dataclass
class InputsOfMatrices(FixedWeightsReader):
    """Reads weights, and notes what is multiplied by each matrix.

    Attributes:
        inputs: [1, in] by name, of x @ W.
        turned: [1, out] by name, of x @ W^T.
    """

    inputs: Weights = dataclasses.field(default_factory=dict)
    turned: Weights = dataclasses.field(default_factory=dict)

    def linear(self, name: str, x: Array) -> Array:
        """x @ W."""
        self.inputs[name] = x
        return super().linear(name, x)

    def transposed(self, name: str, x: Array) -> Array:
        """x @ W^T."""
        self.turned[name] = x
        return super().transposed(name, x)


def _erased(rule: Rule, fixed, at: Weights, memory: Iterate, tokens: Tokens) -> Weights:
    """What the token erases of each matrix: rho / max(1, |x|^2) x^T x W, or W x^T x."""
    if not rule.algorithm.erases:
        return {}
    if rule.order == "decay_first":
        at = _decay(rule, tokens, at)
    own = rule.memory.own_gates(tokens.for_gradients)
    reader = InputsOfMatrices(at, fixed, gates=own)
    rule.memory.fits(reader, tokens.terms[0].k, tokens.terms[0].v)
    rho = rule.algorithm.erasing_rate(tokens.for_steps)[0]
    before = _decay(rule, tokens, memory.A) if rule.order == "decay_first" else memory.A
    rate = lambda x: rho / jnp.maximum(1, jnp.sum(x * x))  # noqa: E731
    rows = {name: rate(x) * x.T @ (x @ before[name]) for name, x in reader.inputs.items()}
    columns = {name: rate(x) * (before[name] @ x.T) @ x for name, x in reader.turned.items()}
    return rows | columns


def _advance(
    rule: Rule,
    memory: Iterate,
    G: Weights,
    tokens: Tokens,
    R: Weights,
    erased: Mapping[str, Array] = MappingProxyType({}),
) -> Iterate:
    """A_t = alpha_t A_{t-1} + U_t, less what is erased, and the buffers.

    Averaged: S_t = S_{t-1} + U_t and A_t = R + r_t S_t.
    """
    own = {name: gate[0] for name, gate in tokens.for_steps.items()}
    decayed = _decay(rule, tokens, memory.A)
    gates = {name: gate[0] for name, gate in tokens.gates.items()}
    A, S, V = {}, {}, {}
    for name, leaf in memory.A.items():
        s = None if memory.S is None else memory.S[name]
        second = None if memory.V is None else memory.V[name]
        if rule.algorithm.acts == "chunk":
            assert s is not None
            A[name], V[name] = decayed[name], second
            S[name] = rule.algorithm.accumulate(s, G[name], own)
            continue
        S[name], V[name], U = rule.algorithm.step(s, second, G[name], own)
        if rule.algorithm.averaged:
            assert s is not None
            S[name] = s + U
            A[name] = R[name] + gates["average"] * S[name]
            continue
        A[name] = decayed[name] + U - erased.get(name, 0.0)
        if rule.retention.proximal and rule.retention.linked == "token":
            A[name] = rule.retention.prox(A[name], leaf, gates)
    return Iterate(A, None if memory.S is None else S, None if memory.V is None else V)


def _pushed(window: Window, tokens: Tokens) -> Window:
    """The window with the token after it: w rows."""
    (term,) = tokens.terms
    join = lambda a, b: jnp.concatenate([a, b])  # noqa: E731
    gates = {name: join(window.gates[name], x) for name, x in tokens.for_gradients.items()}
    k, v = join(window.k, term.k), join(window.v, term.v)
    return Window(k, v, join(window.weight, tokens.weight), gates)


def _least_squares(rule: Rule, fixed, A: Weights, R: Weights, tokens: Tokens, q: Array):
    """H and G after the token, y = phi(q) (H + ridge)^-1 G, and the loss before it."""
    solver, (term,) = rule.algorithm.least_squares, tokens.terms
    assert solver is not None
    reader = FixedWeightsReader({}, fixed, gates=rule.memory.own_gates(tokens.gates))
    phi = lambda x: rule.memory.features(reader, x)  # noqa: E731
    ridge = solver.ridge * jnp.eye(A["H"].shape[0], dtype=q.dtype)
    x, A = phi(term.k), _decay(rule, tokens, A)
    pred = x @ inverse_positive(R["H"] + ridge) @ R["w1"]
    A = {
        "w1": A["w1"] + jnp.outer(x[0], (term.rate * term.v)[0]),
        "H": A["H"] + jnp.outer(x[0], (term.rate * x)[0]),
    }
    y = phi(q) @ inverse_positive(A["H"] + ridge) @ A["w1"]
    return A, y[0], rule.bias.loss(pred, term.v, rule.bias.own_gates(tokens.for_gradients))[0]
