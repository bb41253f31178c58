"""Checks: every argument of `scan` against its rule, before anything is compiled."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from miras.array_typing import Array
from miras.attention.cache import KVState
from miras.backends.base import ScanInputs
from miras.backends.dispatch import check_backend
from miras.config import require, unknown
from miras.config.choices import shown
from miras.engine.state import State, initial_state, made_by
from miras.memory import TokenCache
from miras.parts.gate import Gate
from miras.rule import legality
from miras.rule.options import ScanOptions, check_save_every
from miras.rule.precision import DEFAULT_PRECISION
from miras.rule.rule import Rule
from miras.sequence.arrays import FLOATS, check_finite, check_float

AnyState = State | KVState


def check_types(rule: object, inputs: ScanInputs) -> None:
    """Raise `ConfigError` for arguments of another kind than `miras.scan` takes."""
    require(
        isinstance(rule, Rule),
        f"rule is a {type(rule).__name__}: give a miras.Rule, such as miras.preset('yaad').rule.",
    )
    for name, value in {"W0": inputs.W0, "gates": inputs.gates}.items():
        require(
            isinstance(value, Mapping) or (name == "gates" and value is None),
            f"{name} is a {type(value).__name__}: give a dict from name to array.",
        )
    require(
        inputs.state is None or isinstance(inputs.state, State | KVState),
        f"state is a {type(inputs.state).__name__}: give the one that miras.scan returned.",
    )


def gate_shape(rule: Rule, gate: Gate, inputs: ScanInputs) -> tuple[int, ...]:
    """The shape of a gate in a call."""
    shape = inputs.q.shape[:3]
    if gate.role == "rate" and inputs.terms is not None and _rate_by_term(rule, gate, inputs):
        shape += (inputs.terms,)
    if gate.side == "head":
        return shape
    widths = {"key": inputs.k.shape[-1], "value": inputs.v.shape[-1], "slot": rule.memory.slots}
    return (*shape, widths[gate.side])


def _rate_by_term(rule: Rule, rate: Gate, inputs: ScanInputs) -> bool:
    """Whether each of a token's associations has a rate of its own, and not all of them one.

    A retention that is computed from the rate needs one.
    """
    given = (inputs.gates or {}).get(rate.name)
    one = 3 if rate.side == "head" else 4
    return not rule.retention.uses_rate and (given is None or given.ndim != one)


def check(rule: Rule, inputs: ScanInputs, options: ScanOptions) -> None:
    """Raise `ConfigError` for inputs, options or a state that do not fit together."""
    chunk = options.chunk
    require(chunk < 2**31, f"chunk={shown(chunk)} must be below 2^31, as positions are int32.")
    for condition in legality.of_semantics(rule, options.refine, options.exact):
        require(condition.legal, condition.reason)
    _check_streams(rule, inputs)
    for condition in legality.of_call(rule, inputs.terms, inputs.k_write is not None):
        require(condition.legal, condition.reason)
    _check_ids_and_mask(inputs)
    _check_values(inputs)
    _check_gates(rule, inputs)
    _check_average(rule, inputs, chunk)
    _check_memory(rule, inputs, options)
    check_save_every(options.save_every, "save_every")
    _check_backend(rule, options)


def _check_backend(rule: Rule, options: ScanOptions) -> None:
    """The backend exists, and takes the precision."""
    check_backend(options.backend)
    options.precision.check_memory(rule.memory)
    require(
        options.backend != "reference" or options.precision == DEFAULT_PRECISION,
        'backend="reference" is the oracle and rounds nothing: use "xla" or "auto" with a '
        "precision other than the default.",
    )


def _check_streams(rule: Rule, inputs: ScanInputs) -> None:
    q, k, v = inputs.q, inputs.k, inputs.v
    require(
        q.ndim == 4 or (q.ndim == 5 and not rule.memory.keeps_tokens),
        f"q has shape {q.shape}: it must be [B, T, H, D]"
        + ("." if rule.memory.keeps_tokens else ", or [B, T, H, R, D] with R reads a token."),
    )
    for name, x in {"k": k, "v": v}.items():
        require(
            x.ndim in (4, 5) and x.ndim == k.ndim,
            f"{name} has shape {x.shape}: it must be [B, T, H, D], or both k and v "
            "[B, T, H, R, D] with R terms a token.",
        )
    streams = {"q": q, "k": k, "v": v} | (
        {} if inputs.k_write is None else {"k_write": inputs.k_write}
    )
    for name, x in streams.items():
        check_float(name, x.dtype)
        require(
            x.dtype != jnp.float64 or q.dtype == jnp.float64,
            f"{name} has dtype {x.dtype} and q {q.dtype}, in which the memory would be computed: "
            "give both the same.",
        )
    grouped = rule.memory.keeps_tokens and k.shape[2] > 0 and q.shape[2] % k.shape[2] == 0
    same = q.shape[:2] == k.shape[:2] and (q.shape[2] == k.shape[2] or grouped)
    but = "heads, of which q has a multiple" if rule.memory.keeps_tokens else "an axis of terms"
    require(
        same and q.shape[-1] == k.shape[-1],
        f"q has shape {q.shape} and k {k.shape}: they must be equal, but for {but}.",
    )
    require(
        k.shape[:-1] == v.shape[:-1],
        f"k has shape {k.shape} and v {v.shape}: all but the last axis must be equal.",
    )
    require(q.shape[1] >= 1, f"q has shape {q.shape}: T must be at least 1.")
    require(q.shape[0] >= 1, f"q has shape {q.shape}: B must be at least 1.")
    for name, x in {"q": q, "k": k}.items():
        require(x.ndim == 4 or x.shape[3] > 0, f"{name} has shape {x.shape}: R must be at least 1.")
    if inputs.k_write is not None:
        require(
            inputs.k_write.shape == k.shape,
            f"k_write has shape {inputs.k_write.shape}: it must be that of k, {k.shape}.",
        )


def _check_values(inputs: ScanInputs) -> None:
    streams = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "k_write": inputs.k_write}
    for name, x in streams.items():
        if x is not None:
            check_finite(name, x, inputs.mask)


def _check_gates(rule: Rule, inputs: ScanInputs) -> None:
    if inputs.gates is None:
        return
    declared = {gate.name: gate for gate in rule.gates}
    for name in inputs.gates:
        if name not in declared:
            parts = ", ".join(f"{part} {kind!r}" for part, kind in rule.kinds().items())
            raise unknown(f"gate of this rule ({parts})", name, declared)
    for name, gate in declared.items():
        wanted = gate_shape(rule, gate, inputs)
        letters = "[B, T, H" + (", R" if len(wanted) - (gate.side != "head") == 4 else "")
        letters += {"head": "]", "key": ", Dk]", "value": ", Dv]", "slot": ", slots]"}[gate.side]
        require(
            name in inputs.gates or not gate.learned,
            f"gate {name!r} is missing: give {letters} = {wanted}, or set data_dependent=False in "
            "the part that declares it, or give no gates at all, which holds each at its part's "
            "value.",
        )
        require(
            name not in inputs.gates or inputs.gates[name].shape == wanted,
            f"gate {name!r} has shape {getattr(inputs.gates.get(name), 'shape', None)}: it must be "
            f"{letters} = {wanted}.",
        )
        if name in inputs.gates:
            check_float(f"gate {name!r}", inputs.gates[name].dtype)
            _check_range(gate, inputs.gates[name], inputs.mask)


def _check_range(gate: Gate, given: Array, mask: Array | None) -> None:
    """Rejects NaN; -inf logs and inf thresholds are allowed; masked tokens are not checked."""
    if isinstance(given, Tracer) or isinstance(mask, Tracer):
        return
    values = np.asarray(given, np.float64)
    if mask is not None:
        values = values[np.asarray(mask)]
    legal, wanted = {
        "log_unit": (values <= 0, "at most 0, as the log of a number in (0, 1]"),
        "bounded": ((values >= 0) & (values < np.inf), "finite and at least 0"),
        "positive": (values > 0, "above 0"),
        "real": (np.isfinite(values), "finite"),
    }[gate.range]
    require(
        bool(legal.all()),
        f"gate {gate.name!r} holds {values[~legal].flat[0] if not legal.all() else 0:.4g}: it must "
        f"be {wanted}.",
    )


def _check_ids_and_mask(inputs: ScanInputs) -> None:
    batch, length = inputs.q.shape[:2]
    for name, x in {"segment_ids": inputs.segment_ids, "mask": inputs.mask}.items():
        require(
            x is None or x.shape == (batch, length),
            f"{name} has shape {getattr(x, 'shape', None)}: it must be [B, T] = {(batch, length)}.",
        )
    require(
        inputs.mask is None or inputs.mask.dtype == bool,
        f"mask has dtype {getattr(inputs.mask, 'dtype', None)}: it must be bool.",
    )


def _check_average(rule: Rule, inputs: ScanInputs, chunk: int) -> None:
    """Rejects NaN and values outside the range."""
    average = inputs.average
    if average is None:
        return
    require(
        rule.algorithm.averaged,
        "average scales the mean of a chunk's steps, which algorithm "
        f"{rule.algorithm.kind!r} does not take here: use 'gd' with "
        "averaged=True, or give no average.",
    )
    require(
        average.shape == (chunk,) and str(average.dtype) in FLOATS,
        f"average has shape {average.shape} and dtype {average.dtype}: it must be [C] = "
        f"{(chunk,)}, one number for each position in the chunk.",
    )
    if not isinstance(average, Tracer):
        values = np.asarray(average, np.float64)
        legal = (values >= 0) & (values < np.inf)
        require(
            bool(legal.all()),
            f"average holds {values[~legal][0] if not legal.all() else 0:.4g}: it must be finite "
            "and at least 0.",
        )


def _check_memory(rule: Rule, inputs: ScanInputs, options: ScanOptions) -> None:
    chunk = options.chunk
    batch, heads = inputs.q.shape[0], inputs.k.shape[2]
    dk, dv = inputs.q.shape[-1], inputs.v.shape[-1]
    expected = jax.eval_shape(lambda: rule.init(jax.random.key(0), dk, dv, heads))
    shapes = {name: leaf.shape for name, leaf in expected.items()}
    given = {name: leaf.shape for name, leaf in inputs.W0.items()}
    require(given == shapes, f"W0 has leaves {given}: this rule at these widths needs {shapes}.")
    for name, leaf in inputs.W0.items():
        check_float(f"W0[{name!r}]", leaf.dtype)
        check_finite(f"W0[{name!r}]", leaf)
    if inputs.state is None:
        return
    if rule.memory.token_cache is not None:
        _check_kv_state(rule.memory.token_cache, inputs.state, (batch, heads, dk, dv))
        _check_dtypes(inputs.state)
        return
    made, own = getattr(inputs.state, "made", None), made_by(rule, chunk, options.exact)
    position = getattr(inputs.state, "position", None)
    if made != own and position is not None and not isinstance(position, Tracer):
        furthest = int(np.max(np.asarray(position)))
        require(
            furthest < chunk,
            f"state is {furthest} tokens into a chunk, but chunk={chunk}: give the chunk with "
            "which it was made.",
        )
    sweeps = min(options.refine, chunk)
    kept = {"refine": sweeps, "terms": inputs.terms}
    wanted = jax.eval_shape(lambda: initial_state(rule, inputs.W0, batch, dk, dv, **kept))
    told, needed = _shapes(inputs.state), _shapes(wanted)
    require(
        told == needed,
        f"state is of another rule, batch or refine: it holds {told}, this call needs {needed}.",
    )
    _check_dtypes(inputs.state)
    require(
        made is None or made == own,
        f"state was made by {made}, and this call is {own}: its numbers mean something else here, "
        "so give the rule and the chunk with which it was made, or begin anew.",
    )


def _check_dtypes(state: AnyState) -> None:
    """Memories are floats; what counts, labels or marks tokens is whole numbers or bool."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        field, name = path[0].name, "state" + jax.tree_util.keystr(path)
        dtype = jnp.asarray(leaf).dtype
        if field in _COUNTS:
            require(
                dtype.kind in "iub",
                f"{name} has dtype {dtype}: it must be whole numbers, as miras.scan returned it.",
            )
        else:
            check_float(name, dtype)


_COUNTS = ("position", "segment", "visible", "length", "last_id", "last_segment")


def _shapes(state: AnyState) -> str:
    """Those of a state's arrays, as text, whatever its leaves are."""
    if isinstance(state, State):
        state = dataclasses.replace(state, made=None)
    return str(jax.tree.map(np.shape, state))


def _check_kv_state(cache: TokenCache, state: AnyState, sizes: tuple[int, int, int, int]) -> None:
    batch, heads, dk, dv = sizes
    places = None if cache.window is None else cache.window - 1
    require(
        isinstance(state, KVState)
        and state.k.shape[0] == batch
        and state.k.shape[2:] == (heads, dk)
        and state.v.shape[2:] == (heads, dv)
        and state.grows == (places is None)
        and places in (None, state.k.shape[1]),
        "state is of another rule or batch: this call needs the state that a kv memory with "
        f"window={cache.window}, B={batch}, H={heads}, Dk={dk}, Dv={dv} returned.",
    )
