"""Lowering rules that the compilers of TPU and GPU kernels share: calls, loops, branches, solves.

Also which indexing the rules of either compiler cover.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from miras.array_typing import Array
from miras.backends.pallas.trace.jaxprs import Evaluate, in_avals
from miras.backends.pallas.trace.lowerings import Lowerings
from miras.backends.pallas.trace.primitives import named
from miras.optim.sums_between import by_product, sums_between_p

# Calls alone: evaluation by it inlines them and keeps all else as it is.
CALLS = Lowerings("inlined")
SHARED = Lowerings("kernel", CALLS)


# `eval_jaxpr` is what jax 0.11 and later call `core_call`.
@CALLS.register(
    *named("closed_call core_call eval_jaxpr custom_jvp_call custom_vjp_call custom_lin")
)
def inline_call(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """The called jaxpr, in place."""
    return evaluate(eqn.params["call_jaxpr"], *inputs)


@CALLS.register(*named("jit remat2"))
def inline_jaxpr(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """The same of calls that hold it under another name."""
    return evaluate(eqn.params["jaxpr"], *inputs)


@CALLS.register(sums_between_p)
def sums_between(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """As a product with a triangular matrix."""
    return evaluate(jax.make_jaxpr(by_product)(*in_avals(eqn)), *inputs)


@SHARED.register(*named("custom_linear_solve"))
def linear_solve(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """A solve with a derivative of its own: the solve."""
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    constants = inputs[before : before + lengths.solve]
    return evaluate(jaxprs.solve, *constants, *inputs[sum(lengths) :])


@SHARED.register(*named("cond"))
def cond(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """The same, of lowered branches."""

    def branch(jaxpr) -> Callable:
        return lambda *args: evaluate(jaxpr, *args)

    return lax.switch(inputs[0], [branch(b) for b in eqn.params["branches"]], *inputs[1:])


@SHARED.register(*named("while"))
def while_loop(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """The same, of a lowered condition and body."""
    n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    of_condition, of_body, start = inputs[:n], inputs[n : n + m], inputs[n + m :]
    return lax.while_loop(
        lambda carry: evaluate(eqn.params["cond_jaxpr"], *of_condition, *carry)[0],
        lambda carry: tuple(evaluate(eqn.params["body_jaxpr"], *of_body, *carry)),
        tuple(start),
    )


def updates_one_entry(eqn: JaxprEqn) -> bool:
    """x.at[t].set(y): the update spans all of each axis but those of which it sets one entry."""
    x, y, *_ = in_avals(eqn)
    return all(n in (1, m) for n, m in zip(y.shape, x.shape))


@SHARED.register(*named("dynamic_update_slice"), supports=updates_one_entry)
def dynamic_update_slice(eqn: JaxprEqn, inputs: list[Array], evaluate: Evaluate):
    """x.at[t].set(y), the derivative of x[t], as a selection."""
    del eqn, evaluate
    x, y, *at = inputs
    chosen = None
    for axis, start in enumerate(at):
        if y.shape[axis] != x.shape[axis]:
            here = lax.broadcasted_iota(jnp.int32, x.shape, axis) == start
            chosen = here if chosen is None else chosen & here
    return [y if chosen is None else jnp.where(chosen, jnp.broadcast_to(y, x.shape), x)]


def slices_one_entry(eqn: JaxprEqn) -> bool:
    """x[t]: all of each axis but those of which it takes one entry."""
    x, *_ = in_avals(eqn)
    return all(n in (1, m) for n, m in zip(eqn.params["slice_sizes"], x.shape))


def gathers_columns(eqn: JaxprEqn) -> bool:
    """x[:, index]."""
    numbers = eqn.params["dimension_numbers"]
    columns = numbers.collapsed_slice_dims == (1,) == numbers.start_index_map
    return in_avals(eqn)[0].ndim == 2 and columns and numbers.offset_dims == (0,)


def adds_to_columns(eqn: JaxprEqn) -> bool:
    """x.at[:, index].add(y)."""
    numbers = eqn.params["dimension_numbers"]
    columns = numbers.inserted_window_dims == (1,) == numbers.scatter_dims_to_operand_dims
    return in_avals(eqn)[0].ndim == 2 and columns and numbers.update_window_dims == (0,)
