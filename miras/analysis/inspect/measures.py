"""What one head's memory does with one token: plain definitions, one memory at a time.

Nothing here is shared with the chunk's fast path: weights stand in full, gradients are `jax.vjp`'s.
Weights are leaves [in, out] or [out].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.decay import decay_of
from miras.engine.gradients import Term
from miras.engine.readers import Plain
from miras.engine.tokens import Tokens, tokens_of
from miras.rule.rule import Rule


class MemoryAtToken(NamedTuple):
    """A memory memory a token.

    Attributes:
        at: primal weights at which the token's gradient is taken, before any decay.
        held: those that are read after the token's write.
        fixed: those that only the outer loop trains.
    """

    at: Weights
    held: Weights
    fixed: Weights


class Pairs(NamedTuple):
    """The associations of a token.

    Attributes:
        k: keys as they are written along, [R, dk].
        v: values, [R, dv].
        gates: those that the memory reads with, [R, ...].
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
    """Surprise, error, norm and gates of a token, scalars by name, and its associations.

    Args:
        rule: the four parts.
        memory: the memory before and after the token.
        k: key [dk], or [R, dk] of R associations.
        v: value, as k.
        k_write: as k; None where keys are written along themselves.
        gates: all of the rule, [...], logs for decay and momentum.
    """
    along = None if k_write is None else k_write[None]
    gates = {name: gate[None] for name, gate in gates.items()}
    write = jnp.ones(1, v.dtype)
    tokens = tokens_of(rule, memory.fixed, k[None], v[None], along, gates, write)
    if k.ndim == 1:  # the further steps of an algorithm on the same association
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
    """Frobenius norm over all written weights of the token's inner gradient, before its rate.

    Titans (2501.00663), section 3.1: the gradient with respect to the input. Of several
    associations it is the sum, all at the memory before the token; where a memory is written by
    association, what is written stands for the gradient.
    """
    if rule.order == "decay_first":
        decays = {name: decay_of(rule.memory, name, tokens.log_decays) for name in at}
        at = {name: leaf * decays[name].factor(leaf.ndim)[0] for name, leaf in at.items()}
    each = [gradient(rule, at, fixed, term, tokens) for term in tokens.terms]
    return norm(jax.tree.map(lambda *g: sum(g), *each))


def gradient(rule: Rule, at: Weights, fixed: Weights, term: Term, tokens: Tokens) -> Weights:
    """The gradient of one association's loss at given weights; written along `k_write` if given."""
    if rule.memory.associates:
        own = rule.memory.own_gates(tokens.for_gradients)
        pairs = rule.memory.associations(term.k, term.v, own, tokens.log_decays)
        return {name: -jnp.outer(x[0], e[0]) for name, (x, e) in pairs.items()}

    def read(W: Weights, x: Array) -> Array:
        return rule.memory.apply(Plain(W, fixed, gates=of_memory), x)

    own, of_memory = (part.own_gates(tokens.for_gradients) for part in (rule.bias, rule.memory))
    residual = rule.bias.residual(read(at, term.k), term.v, own)
    along = term.k if term.k_write is None else term.k_write
    (g,) = jax.vjp(lambda W: read(W, along), at)[1](residual)
    return g


def error(rule: Rule, W: Weights, fixed: Weights, pairs: Pairs) -> Array:
    """||M(W, k) - v|| / ||v|| over the associations; those of value 0, erasures, have none."""
    there = jnp.any(pairs.v != 0, axis=-1, keepdims=True)
    reader = Plain(W, fixed, gates=pairs.gates)
    off = jnp.where(there, rule.memory.apply(reader, pairs.k) - pairs.v, 0.0)
    return jnp.linalg.norm(off) / jnp.linalg.norm(pairs.v)


def norm(W: Weights) -> Array:
    """Frobenius norm over all leaves."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in W.values()))
