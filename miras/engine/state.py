"""State: everything a memory carries from one call of `scan` to the next."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from miras.array_typing import Array, Weights
from miras.config import config_hash
from miras.engine.iterate import Iterate
from miras.engine.tokens import Window
from miras.engine.trajectory import dual_start
from miras.parts.gate import Gate
from miras.rule.rule import Rule


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The state of B x H memories. A pytree; splitting a sequence anywhere is exact.

    The chunk step sees the state of one head: the same fields without [B, H], and None for those
    that count tokens (`of_heads`).

    Attributes:
        A: dual state, leaves [B, H, in, out] or [B, H, out], float32 (float64 for float64 inputs);
            the weights themselves where the retention is linear or proximal.
        S: momentum buffer, or the sum of the chunk's steps where they are averaged, as A; None
            where the algorithm has neither.
        V: second buffer, as A; None where the algorithm has none.
        R: the chunk's snapshot W_r, primal, at which gradients are taken.
        L: weights as read inside the chunk, where they follow a linear recursion of their own
            (a link with link_every="chunk"); None elsewhere.
        window: the last tokens, [B, H, w - 1, ...], where a step looks at several; else None.
        sweeps: with `refine`, the memories that the earlier sweeps imply inside the chunk.
        carried: buffers of keys and values by name, [B, H, ...], that parts carry from token to
            token (`Part.carries`); None for rules without.
        position: tokens read since the chunk began, [B] int32, in [0, chunk).
        segment: id of the current segment, [B] int32.
        made: by which rule and chunk, see `made_by`; static. None, as in states of earlier
            versions, fits all whose shapes do.
    """

    A: Weights
    S: Weights | None
    V: Weights | None
    R: Weights
    L: Weights | None
    window: Window | None
    sweeps: tuple[Iterate, ...]
    position: Array
    segment: Array
    carried: dict[str, Array] | None = None
    made: str | None = dataclasses.field(default=None, metadata={"static": True})

    def replace(self, **changes: Any) -> "State":
        """A copy with other fields."""
        return dataclasses.replace(self, **changes)

    def of_heads(self) -> "State":
        """The memories alone, which the chunk step carries: no counts of tokens, no `made`."""
        return self.replace(position=None, segment=None, made=None)


@functools.lru_cache(maxsize=256)
def made_by(rule: Rule, chunk: int, exact: bool) -> str:
    """What a state of a call depends on besides its shapes: the rule, and C where not online.

    Rules that are online in any chunk have none: in closed form, by least squares, in chunks of 1.
    """
    online = exact or rule.algorithm.online or chunk == 1
    parts = ", ".join(f"{part} {kind!r}" for part, kind in rule.kinds().items())
    return f"{parts} ({config_hash(rule)}), {'online' if online else f'chunk={chunk}'}"


def split_fixed(rule: Rule, W0: Weights) -> tuple[Weights, Weights]:
    """W0 as (weights that the memory writes, weights that it only reads)."""
    fixed = {name: W0[name] for name in rule.memory.fixed}
    return {name: leaf for name, leaf in W0.items() if name not in fixed}, fixed


def initial_state(
    rule: Rule,
    W0: Weights,
    batch: int,
    dk: int,
    dv: int,
    *,
    refine: int = 0,
    dtype=jnp.float32,
    made: str | None = None,
    terms: int | None = None,
) -> State:
    """The state before the first token.

    Args:
        rule: the four parts.
        W0: initial primal weights, leaves [H, ...].
        batch: B.
        dk: width of keys.
        dv: width of values.
        refine: as it will be given to `miras.scan`.
        dtype: of the state.
        made: see `State`.
        terms: R, associations a token, where keys have an axis of them.
    """
    fast, _ = split_fixed(rule, W0)
    fast = {name: leaf.astype(dtype) for name, leaf in fast.items()}

    def rows(leaf):
        return jnp.broadcast_to(leaf, (batch, *leaf.shape))

    A = {name: rows(leaf) for name, leaf in dual_start(rule, fast).items()}
    solves = rule.algorithm.least_squares is not None
    primal = A if solves else {name: rows(leaf) for name, leaf in fast.items()}
    zeros = {name: jnp.zeros_like(leaf) for name, leaf in A.items()}
    kept = rule.algorithm.carried
    memory = Iterate(A, zeros if "S" in kept else None, zeros if "V" in kept else None)
    heads = next(iter(fast.values())).shape[0]
    shapes = rule.carries(dk, dv, terms)
    carried = {name: jnp.zeros((batch, heads, *shape), dtype) for name, shape in shapes.items()}
    size = rule.algorithm.window - 1
    window = None
    if size:
        shape = (batch, heads, size)
        window = Window(
            k=jnp.zeros((*shape, dk), dtype),
            v=jnp.zeros((*shape, dv), dtype),
            weight=jnp.zeros(shape, dtype),
            gates={
                gate.name: _empty(rule, gate, shape, dk, dv, dtype) for gate in rule.gradient_gates
            },
        )
    return State(
        A=memory.A,
        S=memory.S,
        V=memory.V,
        R=primal,
        L=primal if rule.reads_linearly else None,
        window=window,
        sweeps=(memory,) * refine,
        position=jnp.zeros(batch, jnp.int32),
        segment=jnp.zeros(batch, jnp.int32),
        carried=carried or None,
        made=made,
    )


def _empty(
    rule: Rule, gate: Gate, shape: tuple[int, ...], dk: int, dv: int, dtype: DTypeLike
) -> Array:
    """A gate of a window that holds no token."""
    widths = {"head": (), "key": (dk,), "value": (dv,), "slot": (rule.memory.slots or 0,)}
    return jnp.full((*shape, *widths[gate.side]), gate.neutral, dtype)
