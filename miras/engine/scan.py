"""scan: the public functional contract; checks its input, fills in gates and picks a backend."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from miras.config import require, unknown
from miras.engine import reference, xla
from miras.engine.state import State, initial_state
from miras.rule import Rule
from miras.typing import Array, Gates, Keys, Mask, Queries, SegmentIds, Values, Weights

Backend = Literal["auto", "reference", "xla"]

BACKENDS = {"auto": xla.run, "reference": reference.run, "xla": xla.run}


def scan(
    rule: Rule,
    W0: Weights,
    q: Queries,
    k: Keys,
    v: Values,
    gates: Gates | None = None,
    *,
    chunk: int = 64,
    refine: int = 0,
    exact: bool = False,
    state: State | None = None,
    segment_ids: SegmentIds | None = None,
    mask: Mask | None = None,
    backend: Backend = "auto",
) -> tuple[Array, State]:
    """Run memories over sequences: write each token, then read.

    Args:
        rule: the four parts and their order.
        W0: initial primal weights, leaves [H, in, out] or [H, out], as from `rule.init`.
        q: queries [B, T, H, Dk], float32, bfloat16 or float64; any T >= 1.
        k: keys [B, T, H, Dk].
        v: values [B, T, H, Dv].
        gates: values of the rule's gates, each [B, T, H]: `lr` > 0, `log_decay` <= 0,
            `log_momentum` <= 0, `threshold` > 0. One that is not given is held at the value of its
            part's config; one that a config holds constant may be given all the same.
        chunk: C, the tokens whose inner gradients share one snapshot of the memory; 1 is online.
            It is part of the model: another C is another function.
        refine: fixed-point sweeps; only 0 is available.
        exact: closed form of the online rule; only False is available.
        state: where to go on from; a new memory if not given.
        segment_ids: [B, T] int; where the id changes, memory and chunk start anew. Segments that
            begin at multiples of C cost nothing, others are computed token by token.
        mask: [B, T] bool; a token with False reads but neither writes nor decays. It still takes
            its place in the chunk.
        backend: "xla", "reference" (per token, the oracle) or "auto".

    Returns:
        y [B, T, H, Dv] in the dtype of q, and the state after the last token, in float32 (float64
        for float64 inputs).

    Raises:
        ConfigError: for shapes, names or values that do not fit, before anything is compiled.
    """
    require(refine == 0, f"refine={refine} is not available in this version: use refine=0.")
    require(not exact, "exact=True is not available in this version: use chunk=1, or exact=False.")
    y, state, _ = scan_with_loss(
        rule,
        W0,
        q,
        k,
        v,
        gates,
        chunk=chunk,
        state=state,
        segment_ids=segment_ids,
        mask=mask,
        backend=backend,
    )
    return y, state


def scan_with_loss(
    rule: Rule,
    W0: Weights,
    q: Array,
    k: Array,
    v: Array,
    gates: Gates | None = None,
    *,
    chunk: int = 64,
    state: State | None = None,
    segment_ids: Array | None = None,
    mask: Array | None = None,
    segments_at_chunks: bool = False,
    backend: Backend = "auto",
) -> tuple[Array, State, Array]:
    """`scan`, with the inner loss of each token at its snapshot (the surprise), [B, T, H], third.

    Masked tokens have loss 0. Where the loss is not used, XLA drops what only it needs. With
    `segments_at_chunks` the caller promises that without a state segments begin at multiples of
    the chunk only, as the data pipeline sees to; no other layout is compiled then, and a segment
    that begins elsewhere is not reset.
    """
    W0 = {name: jnp.asarray(leaf) for name, leaf in W0.items()}
    q, k, v = jnp.asarray(q), jnp.asarray(k), jnp.asarray(v)
    gates = {name: jnp.asarray(gate) for name, gate in (gates or {}).items()}
    mask = None if mask is None else jnp.asarray(mask)
    segment_ids = None if segment_ids is None else jnp.asarray(segment_ids)
    _check(rule, W0, q, k, v, gates, chunk, state, segment_ids, mask, backend)
    return _run(
        rule,
        W0,
        q,
        k,
        v,
        gates,
        chunk=chunk,
        state=state,
        segment_ids=segment_ids,
        mask=mask,
        segments_at_chunks=segments_at_chunks,
        backend=backend,
    )


@functools.partial(jax.jit, static_argnames=("rule", "chunk", "segments_at_chunks", "backend"))
def _run(rule, W0, q, k, v, gates, *, backend, **options):
    """The backend with every gate present; compiled once for each rule, shape and option."""
    batch, length, heads, _ = q.shape
    dtype = jnp.promote_types(jnp.float32, q.dtype)
    for gate in rule.gates:
        if gate.name not in gates:
            held = jnp.asarray(gate.constant(heads), dtype)
            gates[gate.name] = jnp.broadcast_to(held, (batch, length, heads))
    gates = {name: gate.astype(dtype) for name, gate in gates.items()}
    return BACKENDS[backend](rule, W0, q, k, v, gates, **options)


def _check(rule, W0, q, k, v, gates, chunk, state, segment_ids, mask, backend) -> None:
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    is_whole = isinstance(chunk, int) and not isinstance(chunk, bool)
    require(is_whole and chunk >= 1, f"chunk={chunk!r} must be a whole number of at least 1.")
    for name, x in {"q": q, "k": k, "v": v}.items():
        require(x.ndim == 4, f"{name} has shape {x.shape}: it must be [B, T, H, D].")
        require(
            jnp.issubdtype(x.dtype, jnp.floating),
            f"{name} has dtype {x.dtype}: use float32, bfloat16 or float64.",
        )
    require(q.shape == k.shape, f"q has shape {q.shape} and k {k.shape}: they must be equal.")
    require(
        q.shape[:3] == v.shape[:3],
        f"q has shape {q.shape} and v {v.shape}: B, T and H must be equal.",
    )
    batch, length, heads, dk = q.shape
    require(length >= 1, f"q has shape {q.shape}: T must be at least 1.")
    legal = [gate.name for gate in rule.gates]
    for name, gate in gates.items():
        if name not in legal:
            raise unknown(f"gate of this rule ({rule.kinds()})", name, legal)
        require(
            gate.shape == (batch, length, heads),
            f"gate {name!r} has shape {gate.shape}: it must be [B, T, H] = "
            f"{(batch, length, heads)}.",
        )
    for name, x in {"segment_ids": segment_ids, "mask": mask}.items():
        require(
            x is None or x.shape == (batch, length),
            f"{name} has shape {getattr(x, 'shape', None)}: it must be [B, T] = {(batch, length)}.",
        )
    require(
        mask is None or mask.dtype == bool,
        f"mask has dtype {getattr(mask, 'dtype', None)}: it must be bool.",
    )
    require(
        segment_ids is None or jnp.issubdtype(segment_ids.dtype, jnp.integer),
        f"segment_ids has dtype {getattr(segment_ids, 'dtype', None)}: it must be integer.",
    )
    expected = jax.eval_shape(lambda: rule.init(jax.random.key(0), dk, v.shape[3], heads))
    shapes = {name: leaf.shape for name, leaf in expected.items()}
    given = {name: leaf.shape for name, leaf in W0.items()}
    require(given == shapes, f"W0 has leaves {given}: this rule at these widths needs {shapes}.")
    if state is not None:
        _check_state(rule, W0, batch, state)


def _check_state(rule: Rule, W0: Weights, batch: int, state: State) -> None:
    wanted = jax.eval_shape(lambda: initial_state(rule, W0, batch))
    describe = lambda s: str(jax.tree.map(lambda x: x.shape, s))  # noqa: E731
    require(
        describe(wanted) == describe(state),
        f"state is of another rule or batch: it holds {describe(state)}, this call needs "
        f"{describe(wanted)}.",
    )
