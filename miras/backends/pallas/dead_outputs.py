"""A call some of whose outputs are for the backward pass, and are not computed where it reads none.

A block that is rematerialised runs forward twice: once for its output alone, once for its backward
pass. jax removes dead equations from the first run, but it cannot remove an output of a kernel. So
the call is a primitive of its own, which dead-code elimination replaces by the call without them.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

with_saved_p = Primitive("with_saved")
with_saved_p.multiple_results = True


def with_saved(run: Callable[..., Any], *args: Any) -> Any:
    """`run(*args, save=True)`, or `run(*args, save=False)` where nothing reads what it saves.

    Args:
        run: `save` -> (results, saved); saved is ignored if `save` is false.
        *args: pytrees of arrays.
    """
    leaves, tree = jax.tree.flatten(args)
    types = [jax.typeof(leaf) for leaf in leaves]

    def traced(save: bool) -> tuple[ClosedJaxpr, Any]:
        def flat(*leaves: Any) -> Any:
            out, saved = run(*tree.unflatten(leaves), save=save)
            return out, saved if save else None

        return jax.make_jaxpr(flat, return_shape=True)(*types)

    jaxpr, shapes = traced(True)
    results = len(jax.tree.leaves(shapes[0]))
    without = lambda: traced(False)[0]  # noqa: E731
    out = with_saved_p.bind(*leaves, jaxpr=jaxpr, results=results, without=without)
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


def _run(*args: Any, jaxpr: ClosedJaxpr, **_: Any) -> list[Any]:
    return jaxpr_as_fun(jaxpr)(*args)


def _without_dead(used: list[bool], *rest: Any) -> tuple[list[bool], JaxprEqn | None]:
    eqn: JaxprEqn = rest[-1]  # from jax 0.12 on, which inputs are live comes before it
    results = eqn.params["results"]
    if not any(used):
        return [False] * len(eqn.invars), None
    if results < len(used) and not any(used[results:]):
        jaxpr = eqn.params["without"]()
        params = {**eqn.params, "jaxpr": jaxpr}
        eqn = eqn.replace(outvars=eqn.outvars[:results], params=params, effects=jaxpr.effects)
    return [True] * len(eqn.invars), eqn


def _derivative(primals: Any, tangents: Any, *, jaxpr: ClosedJaxpr, **_: Any) -> Any:
    return jax.jvp(jaxpr_as_fun(jaxpr), primals, tuple(map(ad.instantiate_zeros, tangents)))


def _batched(args: Any, axes: Any, *, jaxpr: ClosedJaxpr, **_: Any) -> Any:
    out = jax.vmap(jaxpr_as_fun(jaxpr), axes)(*args)
    return out, [0] * len(out)


with_saved_p.def_impl(_run)
with_saved_p.def_effectful_abstract_eval(lambda *_, jaxpr, **__: (jaxpr.out_avals, jaxpr.effects))
ad.primitive_jvps[with_saved_p] = _derivative
batching.primitive_batchers[with_saved_p] = _batched
pe.dce_rules[with_saved_p] = _without_dead
mlir.register_lowering(with_saved_p, mlir.lower_fun(_run, multiple_results=True))
