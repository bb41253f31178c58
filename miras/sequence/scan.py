"""scan: the public functional contract; checks its input, fills in gates and picks a backend."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Gates, Keys, Mask, Queries, SegmentIds, Values, Weights
from miras.attention import cache as attention
from miras.attention.cache import KVState
from miras.backends.dispatch import BACKENDS, Backend
from miras.backends.xla.loop import SaveEvery, check_save_every
from miras.config import unknown
from miras.engine.averaging import by_position
from miras.engine.masking import where
from miras.engine.state import made_by
from miras.engine.step import Semantics
from miras.rule.precision import FULL, Precision
from miras.rule.rule import Rule
from miras.sequence.arrays import as_array, as_ids
from miras.sequence.checks import AnyState, Call, check, check_precision, check_types, gate_shape


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
    k_write: Keys | None = None,
    state: AnyState | None = None,
    segment_ids: SegmentIds | None = None,
    mask: Mask | None = None,
    save_every: SaveEvery = None,
    precision: Precision = FULL,
    average: Array | None = None,
    backend: Backend = "auto",
) -> tuple[Array, AnyState]:
    """Run memories over sequences: write each token, then read.

    Args:
        rule: the four parts and their order.
        W0: initial primal weights, leaves [H, in, out] or [H, out], as from `rule.init`.
        q: queries [B, T, H, Dk], float32, bfloat16 or float64; any T >= 1.
        k: keys [B, T, H, Dk]; or [B, T, H, R, Dk] where a token writes R associations (RWKV-7,
            DeltaProduct): at the same weights under gd and momentum, one after another under
            multi_step.
        v: values [B, T, H, Dv], or [B, T, H, R, Dv].
        gates: values of the rule's gates (`rule.gates`), each [B, T, H], or [B, T, H, D] where it
            is one per channel: `lr` > 0, `log_decay` <= 0, `log_momentum` <= 0, `threshold` > 0
            and so on; with R associations lr is [B, T, H, R] or [B, T, H, R, D]. All that are data
            dependent must be given; one that a config holds constant may be. With no gates at all
            each is held at the value of its part's config.
        chunk: C, the tokens whose inner gradients share one snapshot of the memory; 1 is online.
            It is part of the model: another C is another function.
        refine: n sweeps towards the online rule inside each chunk: sweep i takes the gradient of
            token s at the W_{s-1} that sweep i - 1 implies. The papers use 0; n >= C is online, and
            more than C sweeps give the result of C.
        exact: the online rule itself in closed form, for any chunk, which is then a size of tiles
            and no part of the model; for linear memories with a quadratic bias.
        k_write: the keys along which errors are written, shaped as k, where they differ from those
            at which they are read (RWKV-7, Comba); for linear memories.
        state: where to go on from, of the same rule, shapes and chunk; a new memory if not given.
        segment_ids: [B, T] int; where the id changes, memory and chunk start anew. Segments that
            begin at multiples of C cost nothing, others are computed token by token.
        mask: [B, T] bool; a token with False is not there. It neither writes, decays nor resets,
            takes no place in the chunk, and its output is zero. Its inputs, NaN too, have no
            effect. A row's own tokens, wherever they are, give the outputs and the state of the row
            without the others. A row without tokens of its own keeps its state.
        save_every: chunks from one memory that is kept for the backward pass to the next; those
            between are computed again. "sqrt" takes the square root of their number, by which
            memory grows with the root of T instead of T, at the cost of one more forward pass.
            None leaves it to the backend; "xla" then keeps one a chunk. No value depends on it.
        precision: the dtypes in which the memory is kept, multiplied and summed; see
            `miras.Precision`. Settings other than the default have no forward-mode derivative.
        average: r_i >= 0 by position i in the chunk, [C], for an algorithm with averaged=True; the
            mean of the chunk's steps so far, 1 / (1 + i), if not given.
        backend: "xla"; "pallas", in kernels on a TPU or a GPU, see docs/kernels.md; "reference",
            token by token, the oracle; or "auto", the fastest that can run this.

    Returns:
        y [B, T, H, Dv] in the dtype of q, and the state after the last token, in that of
        `precision.state`: float32 (float64 for float64 inputs) or bfloat16.

    Raises:
        ConfigError: for shapes, dtypes, names, values or a state that do not fit, and for NaN or
            infinity where values are known, before anything is compiled.
    """
    y, state, _ = scan_with_loss(
        rule,
        W0,
        q,
        k,
        v,
        gates,
        chunk=chunk,
        refine=refine,
        exact=exact,
        k_write=k_write,
        state=state,
        segment_ids=segment_ids,
        mask=mask,
        save_every=save_every,
        precision=precision,
        average=average,
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
    refine: int = 0,
    exact: bool = False,
    k_write: Array | None = None,
    state: AnyState | None = None,
    segment_ids: Array | None = None,
    mask: Array | None = None,
    segments_at_chunks: bool = False,
    at_chunk_edge: bool = False,
    save_every: SaveEvery = None,
    precision: Precision = FULL,
    average: Array | None = None,
    backend: Backend = "auto",
) -> tuple[Array, AnyState, Array]:
    """`scan`, with each token's inner loss where its gradient was taken, [B, T, H], third.

    Masked tokens have loss 0. Where the loss is not used, XLA drops what only it needs. With
    `segments_at_chunks` the caller promises that without a state segments begin at multiples of
    the chunk only, as the data pipeline sees to; no other layout is compiled then, and a segment
    that begins elsewhere is not reset. With `at_chunk_edge` it promises that a state stands at the
    end of a chunk, so that the same holds behind a state.
    """
    check_types(rule, W0, gates, state, exact)
    call = Call(
        W0={name: as_array(f"W0[{name!r}]", leaf) for name, leaf in W0.items()},
        q=as_array("q", q),
        k=as_array("k", k),
        v=as_array("v", v),
        gates=None if gates is None else {n: as_array(f"gate {n!r}", gates[n]) for n in gates},
        k_write=None if k_write is None else as_array("k_write", k_write),
        state=state,
        segment_ids=None if segment_ids is None else as_ids("segment_ids", segment_ids),
        mask=None if mask is None else as_array("mask", mask),
        average=None if average is None else as_array("average", average),
    )
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    check(rule, call, chunk, refine, exact)
    refine = min(refine, chunk)
    check_save_every(save_every, "save_every")
    check_precision(rule, precision, backend)
    if rule.memory.keeps_tokens:
        return attention.run(rule, call, backend=backend)
    return _run(
        rule,
        call,
        chunk=chunk,
        how=Semantics(refine, exact),
        segments_at_chunks=segments_at_chunks,
        at_chunk_edge=at_chunk_edge,
        save_every=save_every,
        precision=precision,
        backend=backend,
    )


STATIC = (
    "rule", "chunk", "how", "segments_at_chunks", "at_chunk_edge", "save_every", "precision",
    "backend",
)  # fmt: skip


@functools.partial(jax.jit, static_argnames=STATIC)
def _run(rule, call: Call, *, backend, **options):
    """The backend with every gate present; compiled once for each rule, shape and option."""
    assert not isinstance(call.state, KVState)  # `check` has seen to it
    gates, mask = every_gate(rule, call), call.mask
    made = made_by(rule, options["chunk"], options["how"].exact)
    if call.state is not None:
        made = call.state.made
        call = call._replace(state=dataclasses.replace(call.state, made=None))
    if mask is not None:
        neutral = {gate.name: gate.neutral for gate in rule.gates}
        gates = {name: where(mask, x, neutral[name]) for name, x in gates.items()}
        streams = {name: getattr(call, name) for name in ("q", "k", "v", "k_write")}
        call = call._replace(**jax.tree.map(lambda x: where(mask, x, 0), streams))
    y, state, loss = BACKENDS[backend](
        rule,
        call.W0,
        call.q,
        call.k,
        call.v,
        gates,
        k_write=call.k_write,
        state=call.state,
        segment_ids=call.segment_ids,
        mask=mask,
        average=_average(rule, call, options["chunk"]),
        **options,
    )
    if mask is not None:
        y, loss = where(mask, y, 0), where(mask, loss, 0)
    return y, dataclasses.replace(state, made=made), loss


def _average(rule: Rule, call: Call, chunk: int) -> Array | None:
    """R by position in the chunk, [C]; None for an algorithm that averages nothing."""
    if not rule.algorithm.averaged:
        return None
    if call.average is not None:
        return call.average
    return by_position(chunk, jnp.promote_types(jnp.float32, call.q.dtype))


def every_gate(rule: Rule, call: Call) -> dict[str, Array]:
    """All gates of the rule, those that the call does not give held at their constants."""
    dtype = jnp.promote_types(jnp.float32, call.q.dtype)
    heads, gates = call.q.shape[2], dict(call.gates or {})
    for gate in rule.gates:
        if gate.name not in gates:
            shape = gate_shape(rule, gate, call)
            held = jnp.asarray(gate.constant(heads), dtype)
            held = held.reshape(heads, *[1] * (len(shape) - 3))
            gates[gate.name] = jnp.broadcast_to(held, shape)
    return {name: gate.astype(dtype) for name, gate in gates.items()}
