"""Erasing: the products of I - r_t x_t^T x_t over the tokens of a chunk, as writes.

Under an algorithm that `erases`, each matrix of the memory follows

    A_t = (alpha_t I - r_t x_t^T x_t) A_{t-1} - x_t^T e_t        r_t = rho_t / max(1, |x_t|^2)

with the token's gradient x_t^T e_t as given. That is a write along x_t of the error
E_t = e_t + r_t x_t A_{t-1}, which depends on the writes before it: the errors of a chunk solve one
unit lower triangular system a matrix, as in `exact`, whatever the memory and the loss.
"""

import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine.decay import ratios
from miras.engine.exact import reads_of_earlier
from miras.engine.iterate import Iterate, Steps
from miras.engine.linear import DualTrajectory
from miras.engine.readers import DualWeight, FactoredGradient, read_dual_weight
from miras.engine.systems import solve_by_column, solve_unit_lower
from miras.rule.rule import Rule


def with_erasures(rule: Rule, start: Iterate, steps: Steps, fixed: Weights) -> Steps:
    """The steps with the errors that also erase.

    Args:
        rule: whose algorithm `erases`; its states are linear in the writes.
        start: the iterate before the first token.
        steps: of C tokens, one write a token.
        fixed: weights that only the outer loop trains.
    """
    nothing = steps._replace(writes=dict.fromkeys(start.A, ()))
    before = DualTrajectory(rule, start, nothing, fixed).before()
    rho = steps.write * rule.algorithm.erasing_rate(steps.for_steps)
    writes = dict(steps.writes)
    for name, (write,) in steps.writes.items():
        dual = before.duals[name]
        if steps.kinds[name] == "linear":
            writes[name] = (_erasing(dual, write, rho),)
        elif steps.kinds[name] == "transposed":
            writes[name] = (_erasing(dual.turned, write.turned, rho).turned,)
    return steps._replace(writes=writes)


def _erasing(dual: DualWeight, write: FactoredGradient, rho: Array) -> FactoredGradient:
    """The write of one matrix, whose error erases too."""
    x, e = write
    rate = (rho / jnp.maximum(1, jnp.sum(x * x, axis=-1)))[:, None]
    seen = reads_of_earlier(dual, x, x)
    target = e + rate * read_dual_weight(dual, x)
    if dual.column is None:
        return FactoredGradient(x, solve_unit_lower(rate * seen, target))
    by_column = (rate * seen)[:, :, None] * ratios(dual.column)
    return FactoredGradient(x, solve_by_column(by_column, target))
