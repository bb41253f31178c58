"""Exact: the online rule for a whole chunk at once, where it has a closed form.

For a linear memory with a quadratic bias the error of token t at W_{t-1} is linear in the errors
before it, so the errors of a chunk solve one unit lower triangular system, the WY or UT transform
of DeltaNet (2406.06484, section 3.2), here with whatever coefficients, terms and keys a rule has:

    E_i = eta_i (a (x_i W_0' - sum_{s < i} c'[i, s] (x_i . X_s) E_s) - v_i)

c', W_0' those of the state at which the error is read, a the bias's slope. A memory that fits
several things, each linear in a weight of its own, has one system for each weight.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.decay import DecaySums, ratios, scores
from miras.engine.gradients import Gradients, Tapped, Term
from miras.engine.readers import DualForm, DualWeight, FactoredGradient, FactoredGradients, ReadKind
from miras.engine.systems import solve_by_column, solve_unit_lower
from miras.rule.rule import Rule


class LinearFit(NamedTuple):
    """One thing that an association fits, as the read of one weight by a known input.

    Attributes:
        weight: its name.
        kind: how it is read, "linear" or "transposed".
        x: the input [C, in].
        base: the read, without what the chunk has written [C, out].
        target: [C, out].
    """

    weight: str
    kind: ReadKind
    x: Array
    base: Array
    target: Array


def exact_gradients(
    rule: Rule,
    duals: Mapping[str, DualWeight],
    terms: tuple[Term, ...],
    fixed: Weights,
    gates: Mapping[str, Array],
) -> Gradients:
    """The gradients of C tokens, each at the weights just before it.

    Args:
        rule: whose memory fits linearly.
        duals: by weight, how it stands before each token; its writes are not looked at.
        terms: of the tokens.
        fixed: weights that only the outer loop trains.
        gates: those that gradients depend on, by name [C, ...].
    """
    own = rule.memory.own_gates(gates)
    reader = DualForm({n: dual._replace(writes=()) for n, dual in duals.items()}, fixed, own)
    by_term = [_linear_fits(rule, reader, term) for term in terms]
    writes: FactoredGradients = {}
    kinds: dict[str, ReadKind] = {}
    losses = []
    for fits in zip(*by_term, strict=True):  # of one weight, of all terms
        name, kind = fits[0].weight, fits[0].kind
        turned = kind == "transposed"
        dual = duals[name].turned if turned else duals[name]
        solved, own_losses = _solved(rule, reader, dual, fits, terms, gates)
        writes[name] = tuple(write.turned for write in solved) if turned else solved
        kinds[name] = kind
        losses += own_losses
    return Gradients(writes, kinds, sum(losses[1:], losses[0]))


def _linear_fits(rule: Rule, reader: DualForm, term: Term) -> list[LinearFit]:
    """What a term fits: each the read of one weight, in the order in which weights are read."""
    recorded = Tapped(reader, None)
    fits = rule.memory.fits(recorded, term.k, term.v)
    return [
        LinearFit(name, kind, recorded.inputs[name], recorded.outputs[name], fit.target)
        for (name, kind), fit in zip(recorded.kinds.items(), fits, strict=True)
    ]


def _solved(
    rule: Rule,
    reader: DualForm,
    dual: DualWeight,
    fits: tuple[LinearFit, ...],
    terms: tuple[Term, ...],
    gates: Mapping[str, Array],
) -> tuple[tuple[FactoredGradient, ...], list[Array]]:
    """The writes of one weight, one per term, and the loss of each."""
    slope = rule.bias.slope
    assert slope is not None
    reads = [fit.x for fit in fits]
    keys = [_write_key(rule, reader, term, read) for term, read in zip(terms, reads)]
    size, count = terms[0].k.shape[0], len(terms)
    rows = []
    for i, x in enumerate(reads):
        blocks = []
        for j, X in enumerate(keys):
            block = reads_of_earlier(dual, x, X)
            if rule.algorithm.sequential and j < i:
                own = jnp.sum(x * X, axis=-1, keepdims=True)
                block = block + own * jnp.eye(size, dtype=own.dtype)
            blocks.append(block)
        rows.append(jnp.stack(blocks, axis=-1))  # [C, C, terms]
    matrix = jnp.stack(rows, axis=1).reshape(size * count, size * count)  # tokens, terms in them

    V, base = _by_token([fit.target for fit in fits]), _by_token([fit.base for fit in fits])
    rate = _by_token([t.rate for t in terms])
    target = rate * (slope * base - V)
    if slope == 0:
        E = target
    elif rate.shape[1] == 1 and dual.column is None:
        E = solve_unit_lower(slope * rate * matrix, target)
    else:
        by_column = slope * rate[:, None, :] * matrix[:, :, None]  # one system a value channel
        if dual.column is not None:
            by_column = by_column * _ratio(dual.column, size, count)
        by_column = jnp.broadcast_to(by_column, (*matrix.shape, V.shape[1]))
        E = solve_by_column(by_column, target)
    pred = _pred(matrix, base, E, dual, size, count)

    E = E.reshape(size, count, -1)
    pred = pred.reshape(size, count, -1)
    of_bias = rule.bias.own_gates(gates)
    losses = [rule.bias.loss(pred[:, j], fit.target, of_bias) for j, fit in enumerate(fits)]
    return tuple(FactoredGradient(X, E[:, j]) for j, X in enumerate(keys)), losses


def reads_of_earlier(dual: DualWeight, x: Array, X: Array) -> Array:
    """What x_i [in] reads of a unit error along X_s, c[i, s] (x_i . X_s) for s < i; [C, C]."""
    size = x.shape[0]
    strict = jnp.arange(size)[:, None] > jnp.arange(size)[None, :]
    return jnp.where(strict, dual.coefficients.c * scores(x, X, dual.row), 0.0)


def _write_key(rule: Rule, reader: DualForm, term: Term, read: Array) -> Array:
    key = read if term.k_write is None else rule.memory.features(reader, term.k_write)
    return key if term.rate_in is None else key * term.rate_in


def _by_token(parts: list[Array]) -> Array:
    """Terms [C, D] each as [C * terms, D], a token's terms side by side."""
    stacked = jnp.stack(parts, axis=1)
    return stacked.reshape(-1, stacked.shape[-1])


def _pred(matrix: Array, base: Array, E: Array, dual: DualWeight, size: int, count: int) -> Array:
    """What the memory answered before each write, for the loss."""
    if dual.column is None:
        return base - matrix @ E
    ratio = _ratio(dual.column, size, count)
    return base - jnp.einsum("ij,ijo,jo->io", matrix, ratio, E)


def _ratio(column: DecaySums, size: int, count: int) -> Array:
    """How value channels decay from term to term, [C * terms, C * terms, D]; not within a token."""
    ratio, same = ratios(column), jnp.eye(size, dtype=bool)
    ratio, same = (jnp.repeat(jnp.repeat(x, count, 0), count, 1) for x in (ratio, same))
    return jnp.where(same[:, :, None], 1.0, ratio)
