"""Trajectories: the states that a run's gradients lead through, one after each token.

Three forms, of which a rule's traits choose one:

- `DualTrajectory`: states that are linear in the gradients, read in dual form;
- `FormedTrajectory`: each state a full weight, by the algorithm's own recursion;
- `LeastSquaresTrajectory`: the minimiser over all tokens so far, read by solving for it
  (recursive least squares).
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.engine import recursive_least_squares as least_squares
from miras.engine.formed import FormedTrajectory
from miras.engine.iterate import Iterate, Steps, link
from miras.engine.linear import DualTrajectory
from miras.engine.readers import FixedWeightsReader
from miras.engine.recursive_least_squares import LeastSquaresTrajectory
from miras.memory import Reader
from miras.rule.rule import Rule


class Trajectory(Protocol):
    """A trajectory of C tokens."""

    def after(self) -> Reader:
        """Reads the state after each token's own write."""
        ...

    def before(self) -> Reader:
        """Reads the state at which each token's gradient is taken: W_{t-1}, or alpha_t W_{t-1}."""
        ...

    def end(self) -> Iterate:
        """The iterate after the last token."""
        ...


def trajectory(rule: Rule, start: Iterate, steps: Steps, fixed: Weights) -> Trajectory:
    """The trajectory in the form that the rule allows.

    Args:
        rule: the four parts.
        start: the iterate before the first token.
        steps: of the tokens.
        fixed: weights that only the outer loop trains.
    """
    if rule.algorithm.least_squares is not None:
        return LeastSquaresTrajectory(rule, start, steps, fixed)
    return (FormedTrajectory if rule.forms_weights else DualTrajectory)(rule, start, steps, fixed)


def dual_start(rule: Rule, fast: Weights) -> Weights:
    """The dual state of initial weights, leaves [H, ...]: unlink(W0)."""
    if rule.algorithm.least_squares is not None:
        return least_squares.start(rule, fast)
    return {name: jax.vmap(rule.retention.unlink)(leaf) for name, leaf in fast.items()}


def at_rest(rule: Rule, A: Weights, fixed: Weights, gates: dict[str, Array]) -> Reader:
    """Reads the memory that a dual state stands for, the same for all tokens.

    Args:
        rule: the four parts.
        A: dual state, leaves [in, out] or [out].
        fixed: weights that only the outer loop trains.
        gates: the memory's own, of the tokens that are read, [T, ...].
    """
    if rule.algorithm.least_squares is not None:
        return least_squares.solution_at_rest(rule, A, fixed, gates)
    return FixedWeightsReader(link(rule, A), fixed, gates=gates)


def primal(rule: Rule, A: Weights) -> Weights:
    """The weights that a dual state stands for; of least squares their solution."""
    if rule.algorithm.least_squares is None:
        return link(rule, A)
    (width, _), dtype = A["H"].shape, A["H"].dtype
    return {"w1": at_rest(rule, A, {}, {}).linear("w1", jnp.eye(width, dtype=dtype))}
