"""read: what memories answer as they stand, without a write."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Gates, Queries, Weights, typed
from miras.config import require, unknown
from miras.engine.readers import FixedWeightsReader, apply
from miras.engine.state import State, split_fixed
from miras.engine.trajectory import at_rest
from miras.memory import Reader
from miras.parts.gate import Gate
from miras.rule.rule import Rule
from miras.sequence.arrays import as_array, check_finite, check_float


@typed
def read(rule: Rule, W0: Weights, q: Queries, state: State, gates: Gates | None = None) -> Array:
    """y_t = M(W, q_t) for every query, W = link(A) as the state holds it (docs/concepts.md).

    This is Titans' retrieval M*(q) (2501.00663, section 3.1): a forward pass without a weight
    update. Nothing is written, and no decay or clock goes on.

    Args:
        rule: the four parts; any memory but kv, which has no weights to read.
        W0: initial primal weights, leaves [H, ...], of which only those are read that the memory
            never writes.
        q: queries [B, T, H, Dk], any T >= 1; or [B, T, H, N, Dk].
        state: of `miras.scan` with the same rule.
        gates: values of the gates that the memory reads with (`rule.memory.gates()`), each
            [B, T, H], or [B, T, H, D] where it is one per channel; one that is not given is held at
            its config's value.

    Returns:
        [B, T, H, Dv], or [B, T, H, N, Dv], in the dtype of q.

    Raises:
        ConfigError: for a kv memory, for queries or gates that are no numbers or not finite, and
            for gates that the memory does not declare, or of other shapes.
    """
    require(
        not rule.memory.keeps_tokens and isinstance(state, State),
        f"read needs the state of a memory with weights: memory {rule.memory.kind!r} keeps tokens, "
        "which miras.scan attends to.",
    )
    q = as_array("q", q)
    check_float("q", q.dtype)
    check_finite("q", q)
    given = {name: as_array(f"gate {name!r}", gate) for name, gate in (gates or {}).items()}
    declared = {gate.name: gate for gate in rule.memory.gates()}
    for name, x in given.items():
        if name not in declared:
            raise unknown(f"gate of memory {rule.memory.kind!r}", name, declared)
        wanted = _shape(rule, declared[name], q, state.A)
        require(
            x.shape == wanted, f"gate {name!r} has shape {x.shape}: it must have shape {wanted}."
        )
        check_float(f"gate {name!r}", x.dtype)
        check_finite(f"gate {name!r}", x)
    return answer(rule, W0, q, state.A, given)


def _shape(rule: Rule, gate: Gate, q: Array, A: Weights) -> tuple[int, ...]:
    """The shape of a gate of the memory that queries read with."""
    if gate.side == "head":
        return q.shape[:3]
    widths = {"key": q.shape[-1], "slot": rule.memory.slots}
    for name, leaf in A.items():
        sides = rule.memory.sides(name)
        widths |= {side: size for side, size in zip(sides, leaf.shape[2:]) if side == "value"}
    return (*q.shape[:3], widths[gate.side])


def answer(rule: Rule, W0: Weights, q: Array, A: Weights, gates: Mapping[str, Array]) -> Array:
    """`read` from dual states, leaves [B, H, ...]; of the gates only the memory's own are read."""
    return _answer(rule, W0, q, A, gates, functools.partial(at_rest, rule))


def answer_of_weights(
    rule: Rule, W0: Weights, q: Array, W: Weights, gates: Mapping[str, Array]
) -> Array:
    """`answer` from primal weights."""
    return _answer(rule, W0, q, W, gates, FixedWeightsReader)


def _answer(
    rule: Rule,
    W0: Weights,
    q: Array,
    A: Weights,
    gates: Mapping[str, Array],
    reader: Callable[..., Reader],
) -> Array:
    _, fixed = split_fixed(rule, W0)
    dtype = jnp.promote_types(q.dtype, jax.tree.leaves(A)[0].dtype)
    own = {}
    for gate in rule.memory.gates():
        shape = _shape(rule, gate, q, A)
        held = gate.constant(q.shape[2]).reshape(-1, *[1] * (len(shape) - 3))
        own[gate.name] = jnp.broadcast_to(jnp.asarray(gates.get(gate.name, held), dtype), shape)
    fixed = {name: leaf.astype(dtype) for name, leaf in fixed.items()}

    def of_head(A: Weights, fixed: Weights, q: Array, gates: dict[str, Array]) -> Array:
        return apply(rule.memory, reader(A, fixed, gates=gates), q)

    of_row = jax.vmap(of_head, in_axes=(0, 0, 1, 1), out_axes=1)
    of_rows = jax.vmap(of_row, in_axes=(0, None, 0, 0))
    return of_rows(A, fixed, q.astype(dtype), own).astype(q.dtype)
