"""Process several chunks, forming the momentum buffer S only after the last one.

A chunk reads the S before it, and only the next chunk reads the S after it. So S between two chunks
need not be formed: the first chunk's gradients are writes of the second as well. Composed from the
chunk step's own two halves; TPU kernels run two chunks so where S is large (`backends.pallas.tpu`).
"""

import jax
import jax.numpy as jnp

from miras.array_typing import Array
from miras.engine.iterate import Steps, last
from miras.engine.state import State
from miras.engine.step import Tile, advance, learn
from miras.engine.tile import Constants, in_dtype_of, in_step_dtype
from miras.optim.coefficients import Coefficients
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


def can_join(rule: Rule, options: ScanOptions) -> bool:
    """Whether a chunk can leave S to the next one.

    That takes momentum whose states are linear in the gradients, and nothing but W and S to carry.
    """
    algorithm = rule.algorithm
    alone = algorithm.acts != "chunk" and algorithm.window == 1 and not algorithm.averaged
    plain = not (rule.forms_weights or rule.reads_linearly or rule.retention.proximal)
    has_momentum = "S" in algorithm.keeps
    return alone and plain and has_momentum and not (options.refine or options.exact)


def joined_step(
    rule: Rule, options: ScanOptions, constants: Constants, memory: State, *chunks: Tile
) -> tuple[State, list[tuple[Array, Array]]]:
    """As `tile_step` of one whole chunk after the other, none of which begins a segment.

    Args:
        rule: the four parts, for which `can_join` holds.
        options: `refine` and `exact`.
        constants: of the head.
        memory: of the head, before the first chunk.
        *chunks: tokens of whole chunks, in order.

    Returns:
        The memory after the last chunk, and (y, loss) of each.
    """
    before, S, steps, read = memory, None, None, []
    for chunk in chunks:
        dtype = chunk.q.dtype
        memory, chunk = in_step_dtype(memory, chunk)
        S = memory.S if S is None else S
        pending = learn(rule, options, constants.fixed, memory.replace(S=S), chunk)
        if steps is not None:
            pending = pending._replace(steps=_joined(steps, pending.steps))
        steps = pending.steps
        memory, y, loss = advance(rule, constants.fixed, pending, chunk)
        read.append((y.astype(dtype), loss))
    return in_dtype_of(before, memory), read


def _joined(first: Steps, second: Steps) -> Steps:
    """The second run's steps from S as it was before the first, which forms no S of its own.

    The second run begins with S_0 = m S - sum_s n[s] grad_s. Put into its recursion, this makes the
    first run's gradients writes of the second, as a window's are:

        A_t = beta_t A_0 + p_t m S - sum_s p_t n[s] grad_s - sum_s c[t, s] grad_s, and S_t alike.
    """
    assert first.coefficients is not None
    assert second.coefficients is not None
    found: dict[int, Coefficients] = {}
    for name, at in second.coefficients.items():
        if id(at) in found:
            continue
        before = first.coefficients[name]
        assert before.m is not None
        assert before.n is not None
        assert at.p is not None
        assert at.m is not None
        assert at.n is not None
        m, n = last(before.m), last(before.n)[None, :]
        c, n = (
            jnp.concatenate([scale[:, None] * n, own], axis=1)
            for scale, own in ((at.p, at.c), (at.m, at.n))
        )
        found[id(at)] = Coefficients(c, at.beta, m * at.p, n, m * at.m)
    coefficients = {name: found[id(at)] for name, at in second.coefficients.items()}
    writes = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first.writes, second.writes)
    return second._replace(writes=writes, coefficients=coefficients)
