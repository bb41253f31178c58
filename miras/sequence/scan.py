"""scan: run memories over sequences. Checks the call, fills in gates, and hands it to a backend."""

import functools
import math

import jax
import jax.numpy as jnp

from miras.array_typing import (
    Array,
    Gates,
    Keys,
    Mask,
    Queries,
    SegmentIds,
    Values,
    Weights,
    typed,
)
from miras.attention.cache import attend_to_cache
from miras.backends import dispatch
from miras.backends.base import Alignment, ScanInputs, ScanResult
from miras.engine import saved
from miras.engine.averaging import by_position
from miras.engine.masking import where
from miras.engine.state import made_by
from miras.memory import TokenCache
from miras.parallel.shard import over_mesh
from miras.rule.options import SaveEvery, ScanOptions
from miras.rule.precision import DEFAULT_PRECISION, Precision
from miras.rule.rule import Rule
from miras.sequence.arrays import as_arrays
from miras.sequence.axes import STATE, cache_axes, inputs_axes, result_axes
from miras.sequence.checks import AnyState, check, check_types, gate_shape


@typed
def scan(
    rule: Rule,
    W0: Weights,
    q: Queries,
    k: Keys,
    v: Values,
    gates: Gates | None = None,
    *,
    k_write: Keys | None = None,
    state: AnyState | None = None,
    segment_ids: SegmentIds | None = None,
    mask: Mask | None = None,
    average: Array | None = None,
    chunk: int = 64,
    refine: int = 0,
    exact: bool = False,
    save_every: SaveEvery = None,
    precision: Precision = DEFAULT_PRECISION,
    backend: str = "auto",
) -> tuple[Array, AnyState]:
    """Run memories over sequences: write each token, then read.

    Args:
        rule: the four parts and their order.
        W0: initial primal weights, leaves [H, in, out] or [H, out], as from `rule.init`; of a kv
            memory with grouped heads [K, ...].
        q: queries [B, T, H, Dk], float32, bfloat16 or float64; any T >= 1. Or
            [B, T, H, N, Dk] where a token reads N times (Mamba-3's MIMO), each time after all that
            it writes; not for a kv memory.
        k: keys [B, T, H, Dk]; or [B, T, H, R, Dk] where a token writes R associations (RWKV-7,
            DeltaProduct): at the same weights under gd and momentum, one after another under
            multi_step. For a kv memory the number of heads may be a divisor K of H: each serves
            H / K heads of queries, which are neighbours (grouped queries, 2305.13245).
        v: values [B, T, H, Dv], heads as k, or [B, T, H, R, Dv].
        gates: values of the rule's gates (`rule.gates`), each [B, T, H], or [B, T, H, D] for a gate
            per channel: `lr` > 0, `log_decay` <= 0, `log_momentum` <= 0, `threshold` > 0 and so on;
            with R associations lr is [B, T, H, R] or [B, T, H, R, D], or of the shape without R for
            one rate that all of them share, which a retention computed from lr needs. Every
            data-dependent gate must be given; one that a config holds constant may be. With no
            gates at all, each takes the value of its part's config.
        k_write: the keys along which errors are written, shaped as k, where they differ from those
            at which they are read (RWKV-7, Comba); for linear memories.
        state: the state to continue from, of the same rule, shapes and chunk; a new memory if not
            given.
        segment_ids: [B, T] int; where the id changes, memory and chunk start anew. Segments that
            begin at multiples of C cost nothing. A segment that begins elsewhere starts a new tile;
            if a row needs more than ceil(T / C) tiles (one more with a state), the whole call
            processes one token at a time.
        mask: [B, T] bool; a token with False is absent. It neither writes, decays nor resets,
            takes no place in the chunk, and its output is zero. Its inputs, NaN too, have no
            effect. A row's present tokens, wherever they are, give the outputs and the state of
            the row without the absent ones. A row without present tokens keeps its state.
        average: r_i >= 0 by position i in the chunk, [C], for an algorithm with averaged=True; the
            mean of the chunk's steps so far, 1 / (1 + i), if not given.
        chunk: C, the tokens whose inner gradients share one snapshot of the memory; 1 is the online
            rule. It is part of the model: another C is another function.
        refine: sweeps towards the online rule inside each chunk, see `ScanOptions`.
        exact: the online rule in closed form, for linear memories with a quadratic bias.
        save_every: save one memory every `save_every` chunks for the backward pass; "sqrt", or None
            to leave it to the backend: "xla" then saves one a chunk.
        precision: the dtypes in which the memory is kept, multiplied and summed; see
            `miras.Precision`. Settings other than the default have no forward-mode derivative.
        backend: "xla"; "pallas", kernels on a TPU or a GPU, see docs/kernels.md; "reference",
            token by token, the oracle; or "auto", the first backend preferred on this device that
            supports the call, else "xla".

    Returns:
        y [B, T, H, Dv], or [B, T, H, N, Dv], in the dtype of q, and the state after the last token,
        in that of `precision.state`: float32 (float64 for float64 inputs) or bfloat16.

    Raises:
        ConfigError: for shapes, dtypes, names, values or a state that do not fit, and for NaN or
            infinity where values are known, before anything is compiled.
    """
    options = ScanOptions(
        chunk=chunk,
        refine=refine,
        exact=exact,
        save_every=save_every,
        precision=precision,
        backend=backend,
    )
    inputs = ScanInputs(W0, q, k, v, gates, k_write, state, segment_ids, mask, average)
    y, state, _ = scan_with_loss(rule, inputs, options)
    return y, state


def scan_with_loss(
    rule: Rule,
    inputs: ScanInputs,
    options: ScanOptions = ScanOptions(),
    alignment: Alignment = Alignment(),
) -> ScanResult:
    """`scan`, with each token's inner loss where its gradient was taken, [B, T, H], third.

    Masked tokens have loss 0. Where the loss is not used, XLA eliminates what only it needs.

    Args:
        rule: the four parts.
        inputs: as the arguments of `scan`.
        options: how to run the rule.
        alignment: what the caller promises about chunk edges.

    Raises:
        ConfigError: as `scan`.
    """
    check_types(rule, inputs)
    inputs = as_arrays(inputs)
    check(rule, inputs, options)
    options = options.replace(refine=min(options.refine, options.chunk))
    if rule.memory.token_cache is not None:
        found = _attend(rule, inputs, options, rule.memory.token_cache)
    else:
        found = _run(rule, inputs, options, alignment)
    return found._replace(y=saved.output(found.y))


def _attend(rule: Rule, inputs: ScanInputs, options: ScanOptions, cache: TokenCache) -> ScanResult:
    """The attention of a kv memory, whose keys and values may have fewer heads than queries."""
    before = inputs.state
    reserved = before is not None and before.reserved
    axes = cache_axes(grows=cache.window is None, reserved=reserved)
    return over_mesh(
        lambda inputs: attend_to_cache(rule, inputs, options),
        (inputs,),
        (inputs_axes(None if before is None else axes),),
        result_axes(axes),
        rows=inputs.q.shape[0],
        heads=math.gcd(inputs.q.shape[2], inputs.k.shape[2]),
    )


@functools.partial(jax.jit, static_argnames=("rule", "options", "alignment"))
def _run(rule: Rule, inputs: ScanInputs, options: ScanOptions, alignment: Alignment) -> ScanResult:
    """The backend with every gate present; compiled once for each rule, shape and option."""
    gates, mask, state = every_gate(rule, inputs), inputs.mask, inputs.state
    made = made_by(rule, options.chunk, options.exact) if state is None else state.made
    inputs = inputs._replace(
        gates=gates,
        state=None if state is None else state.replace(made=None),
        average=_average(rule, inputs, options.chunk),
    )
    if mask is not None:
        inputs = _without_masked(rule, inputs, mask)
    y, state, loss = over_mesh(
        functools.partial(_dispatch, rule, options, alignment),
        (inputs,),
        (inputs_axes(None if state is None else STATE),),
        result_axes(STATE),
        rows=inputs.q.shape[0],
        heads=inputs.q.shape[2],
    )
    if mask is not None:
        y, loss = where(mask, y, 0), where(mask, loss, 0)
    return ScanResult(y, state.replace(made=made), loss)


def _dispatch(
    rule: Rule, options: ScanOptions, alignment: Alignment, inputs: ScanInputs
) -> ScanResult:
    return dispatch.run(rule, inputs, options, alignment)


def _without_masked(rule: Rule, inputs: ScanInputs, mask: Mask) -> ScanInputs:
    """Masked tokens hold neutral values: those of gates, and 0 in streams."""
    neutral = {gate.name: gate.neutral for gate in rule.gates}
    assert inputs.gates is not None
    gates = {name: where(mask, x, neutral[name]) for name, x in inputs.gates.items()}
    streams = {name: getattr(inputs, name) for name in ("q", "k", "v", "k_write")}
    return inputs._replace(gates=gates, **jax.tree.map(lambda x: where(mask, x, 0), streams))


def _average(rule: Rule, inputs: ScanInputs, chunk: int) -> Array | None:
    """Factors r by position in the chunk, [C]; None for an algorithm that averages nothing."""
    if not rule.algorithm.averaged:
        return None
    if inputs.average is not None:
        return inputs.average
    return by_position(chunk, jnp.promote_types(jnp.float32, inputs.q.dtype))


def every_gate(rule: Rule, inputs: ScanInputs) -> dict[str, Array]:
    """All gates of the rule; those that are not given take their constants."""
    dtype = jnp.promote_types(jnp.float32, inputs.q.dtype)
    heads, gates = inputs.q.shape[2], dict(inputs.gates or {})
    for gate in rule.gates:
        if gate.name not in gates:
            shape = gate_shape(rule, gate, inputs)
            held = jnp.asarray(gate.constant(heads), dtype)
            held = held.reshape(heads, *[1] * (len(shape) - 3))
            gates[gate.name] = jnp.broadcast_to(held, shape)
    return {name: gate.astype(dtype) for name, gate in gates.items()}
