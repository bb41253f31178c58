"""Measures of one head's memory at one token, by definition.

No code is shared with the chunk's fast path: weights are materialised, gradients come from
`jax.vjp`. Weights have leaves [in, out] or [out].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.buffers import ChunkBuffers
from miras.engine.decay import decay_of
from miras.engine.gradients import Term
from miras.engine.readers import FixedWeightsReader
from miras.engine.tokens import Tokens, tokens_of
from miras.memory import Fit
from miras.rule.rule import Rule


class MemoryAtToken(NamedTuple):
    """The primal weights of a memory before and after the write of a token.

    Attributes:
        at: weights at which the token's gradient is taken, before any decay.
        held: weights that are read after the write.
        fixed: weights that only the outer loop trains.
        carried: buffers of keys and values before the token, by name; None for rules without.
    """

    at: Weights
    held: Weights
    fixed: Weights
    carried: dict[str, Array] | None = None


class Pairs(NamedTuple):
    """The associations of a token.

    Attributes:
        k: write keys, [R, dk].
        v: values, [R, dv].
        gates: gates of the read, [R, ...].
    """

    k: Array
    v: Array
    gates: dict[str, Array]


def measures(
    rule: Rule,
    memory: MemoryAtToken,
    k: Array,
    v: Array,
    k_write: Array | None,
    gates: dict[str, Array],
) -> tuple[dict[str, Array], Pairs]:
    """Measure surprise, error, norm and gates at a token.

    Args:
        rule: the four parts.
        memory: the memory before and after the token.
        k: key [dk], or [R, dk] of R associations.
        v: value, as k.
        k_write: write key, as k; None if it is k.
        gates: all gates of the rule, [...]; logs for decay and momentum.

    Returns:
        Scalars by name, and the associations of the token.
    """
    along = None if k_write is None else k_write[None]
    gates = {name: gate[None] for name, gate in gates.items()}
    write = jnp.ones(1, v.dtype)
    buffers = ChunkBuffers(memory.carried or {}, write)
    tokens = tokens_of(rule, memory.fixed, k[None], v[None], along, gates, write, buffers)
    if k.ndim == 1:  # drop further steps of the algorithm on the same association
        tokens = tokens._replace(terms=tokens.terms[:1])
    keys = [term.k if term.k_write is None else term.k_write for term in tokens.terms]
    own = rule.memory.own_gates(tokens.gates)
    pairs = Pairs(
        jnp.concatenate(keys),
        jnp.concatenate([term.v for term in tokens.terms]),
        {name: jnp.repeat(gate, len(keys), axis=0) for name, gate in own.items()},
    )
    found = {
        "surprise": surprise(rule, memory.at, memory.fixed, tokens),
        "error": error(rule, memory.held, memory.fixed, pairs),
        "norm": norm(memory.held),
    }
    for name, gate in tokens.gates.items():
        natural = jnp.exp(gate) if name.startswith("log_") else gate
        found[name.removeprefix("log_")] = jnp.mean(natural)
    return found, pairs


def surprise(rule: Rule, at: Weights, fixed: Weights, tokens: Tokens) -> Array:
    """Frobenius norm of the token's inner gradient over all weights, before the learning rate.

    Titans (2501.00663), section 3.1. With several associations it is the gradient of their sum, at
    the memory before the token. For a memory that is written by association, the write takes the
    gradient's place.
    """
    if rule.order == "decay_first":
        decays = {name: decay_of(rule.memory, name, tokens.log_decays) for name in at}
        at = {name: leaf * decays[name].factor(leaf.ndim)[0] for name, leaf in at.items()}
    each = [gradient(rule, at, fixed, term, tokens) for term in tokens.terms]
    return norm(jax.tree.map(lambda *g: sum(g), *each))


def gradient(rule: Rule, at: Weights, fixed: Weights, term: Term, tokens: Tokens) -> Weights:
    """The gradient of one association's loss at given weights, along `k_write` if given."""
    if rule.memory.associates:
        own = rule.memory.own_gates(tokens.for_gradients)
        pairs = rule.memory.associations(term.k, term.v, own, tokens.log_decays)
        return {name: -jnp.outer(x[0], e[0]) for name, (x, e) in pairs.items()}

    def fits(W: Weights, x: Array) -> tuple[Fit, ...]:
        reader = FixedWeightsReader(W, fixed, gates=of_memory)
        return rule.memory.fits(reader, x, term.v)

    own, of_memory = (part.own_gates(tokens.for_gradients) for part in (rule.bias, rule.memory))
    residual = tuple(rule.bias.residual(*fit, own) for fit in fits(at, term.k))
    along = term.k if term.k_write is None else term.k_write
    (g,) = jax.vjp(lambda W: tuple(fit.pred for fit in fits(W, along)), at)[1](residual)
    return g


def error(rule: Rule, W: Weights, fixed: Weights, pairs: Pairs) -> Array:
    """||M(W, k) - v|| / ||v|| over associations; erasures, of value 0, are left out.

    Of a memory that fits something else to something else (`Memory.fits`), the same of those.
    """
    nonzero = jnp.any(pairs.v != 0, axis=-1, keepdims=True)
    reader = FixedWeightsReader(W, fixed, gates=pairs.gates)
    fits = rule.memory.fits(reader, pairs.k, pairs.v)
    off = [jnp.where(nonzero, pred - target, 0.0) for pred, target in fits]
    return _norm(off) / _norm([jnp.where(nonzero, target, 0.0) for _, target in fits])


def _norm(parts: list[Array]) -> Array:
    """The l2 norm of all entries."""
    return jnp.sqrt(sum(jnp.sum(x**2) for x in parts))


def norm(W: Weights) -> Array:
    """Frobenius norm over all leaves."""
    return _norm(list(W.values()))
