"""Spans: parameters that are updated once in several updates of the model.

A layer gives a parameter the metadata `period`, tokens of training between two of its updates, as
the levels of the channel mixer `cms` do.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx

Masked = Callable[[Any], Any]  # from a tree like the parameters to the same with others left out


def spans_of(params: nnx.State, tokens: int) -> Any:
    """Updates of the model for each update of a parameter, a nested dict of ints >= 1.

    Args:
        params: with their metadata, see `state.structure`.
        tokens: of training in each update of the model.
    """

    def of(variable: nnx.Variable) -> int:
        return max(1, math.ceil(variable.get_metadata().get("period", 1) / tokens))

    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    return nnx.to_pure_dict(jax.tree.map(of, params, is_leaf=is_variable))


def by_span(
    make: Callable[[Masked], optax.GradientTransformation], spans: Any
) -> optax.GradientTransformation:
    """A transformation that sees the parameters of a span of n updates once in n updates.

    It is given the mean of their n gradients, with the updates and the state of those parameters
    alone, and gives updates of 0 in between.

    Args:
        make: the transformation of some parameters, from the function that leaves out the others
            in trees like the parameters.
        spans: as `spans_of` has them.
    """
    known = sorted(set(jax.tree.leaves(spans)))

    def of(span: int) -> optax.GradientTransformation:
        def masked(tree: Any) -> Any:
            return jax.tree.map(lambda n, x: x if n == span else optax.MaskedNode(), spans, tree)

        transform = make(masked)
        if span == 1:
            return transform
        return optax.MultiSteps(transform, span).gradient_transformation()

    labels = jax.tree.map(str, spans)
    return optax.partition({str(span): of(span) for span in known}, labels)
