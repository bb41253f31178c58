"""Iterates: the states that a recursion goes through, and what moves one to the next."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Leaf, Weights
from miras.engine.decay import Decay
from miras.engine.readers import FactoredGradient, FactoredGradients, ReadKind
from miras.optim.coefficients import Coefficients
from miras.rule.rule import Rule


class Iterate(NamedTuple):
    """What a recursion carries: the state A and the algorithm's buffers S and V, if it keeps them.

    A is dual under a link, else the weight itself.
    """

    A: Weights
    S: Weights | None
    V: Weights | None


class Steps(NamedTuple):
    """What moves a memory through C tokens.

    Attributes:
        writes: factored gradients over K rows: the C tokens, after those of a window if any.
        kinds: how each weight is read.
        decays: by weight.
        coefficients: by weight; None where states are formed.
        band: [C, K], the weight of each gradient in each token's step; None for its own alone.
        for_steps: the algorithm's own gates by name, [C, ...].
        write: [C], 1 or 0.
        gates: all effective gates of the tokens, [C, ...].
    """

    writes: FactoredGradients
    kinds: dict[str, ReadKind]
    decays: dict[str, Decay]
    coefficients: dict[str, Coefficients] | None
    band: Array | None
    for_steps: dict[str, Array]
    write: Array
    gates: dict[str, Array]


def weighted_sum(weights: Array, write: FactoredGradient, kind: ReadKind) -> Leaf:
    """sum_s weights[s] grad_s, with weights [K]: one weight's shape."""
    X, E = write
    outer = kind in ("linear", "transposed")
    if outer and X.shape[1] < E.shape[1]:
        X = weights[:, None] * X
    else:
        E = weights[:, None] * E
    if outer:
        return jax.lax.dot_general(X, E, (((0,), (0,)), ((), ())))
    return jnp.sum(E * X if kind == "scale" else E, axis=0)


def link(rule: Rule, A: Weights) -> Weights:
    """The primal weights of a state."""
    if rule.retention.proximal:
        return A
    return {name: rule.retention.link(leaf) for name, leaf in A.items()}


def last(x: Array) -> Array:
    """The last row, as a masked sum, since Triton has no static slice."""
    size = x.shape[0]
    return (jnp.arange(size) == size - 1).astype(x.dtype) @ x
