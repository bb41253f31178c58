"""Random inputs for any rule: weights, streams, and gates of the shapes that its parts declare."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from miras import sequence
from miras.backends.base import Alignment, ScanInputs, ScanResult
from miras.parts.gate import Gate, Role
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule
from miras.sequence.checks import gate_shape


class Inputs(NamedTuple):
    """The array arguments of `miras.scan`, as NumPy arrays."""

    W0: dict[str, np.ndarray]
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    gates: dict[str, np.ndarray]


_SPANS: dict[Role | None, tuple[float, float]] = {
    "rate": (0.002, 0.02),  # so small that rounding is not amplified
    "update": (0.2, 1.0),
    "decay": (-0.3, 0.0),
    "momentum": (-1.0, -0.1),
    "weight": (0.3, 1.0),
}


def random_inputs(
    rule: Rule,
    *,
    B: int = 1,
    T: int = 3,
    H: int = 2,
    dk: int = 2,
    dv: int | None = None,
    terms: int | None = None,
    reads: int | None = None,
    seed: int = 0,
    dtype: npt.DTypeLike = np.float64,
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> Inputs:
    """Inputs with keys of unit norm, learning rates of about 0.01, and weights off their start.

    Args:
        rule: decides which weights and gates there are.
        B: batch.
        T: tokens.
        H: heads.
        dk: width of keys.
        dv: width of values; dk if not given.
        terms: associations a token, where keys have an axis for them.
        reads: queries a token, where queries have an axis for them.
        seed: of the draw.
        dtype: of all arrays.
        spans: for gates by their name, the lowest and the highest value; others as `span` says.
    """
    rng, own = np.random.default_rng(seed), spans or {}
    dv = dk if dv is None else dv
    asked, several = (() if n is None else (n,) for n in (reads, terms))
    shapes = ((B, T, H, *asked, dk), (B, T, H, *several, dk), (B, T, H, *several, dv))
    q, k, v = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    call = ScanInputs({}, q, k, v)  # pyright: ignore[reportArgumentType]
    gates = {}
    for gate in rule.gates:
        low, high = own.get(gate.name, span(gate))
        drawn = rng.uniform(low, high, size=gate_shape(rule, gate, call))
        gates[gate.name] = drawn.astype(dtype)
    start = rule.init_raw(jax.random.key(seed), dk, dv, H)
    raw = {n: np.asarray(w) + 0.3 * rng.normal(size=w.shape) for n, w in start.items()}
    W0 = {n: np.asarray(w, dtype) for n, w in rule.constrain(raw).items()}  # pyright: ignore
    return Inputs(W0, q, k, v, gates)


def scan_with_loss(rule: Rule, *arrays: Any, **keywords: Any) -> ScanResult:
    """`miras.sequence.scan_with_loss` with its arguments as keywords.

    Args:
        rule: the four parts.
        *arrays: W0, q, k, v and gates, as from `random_inputs`.
        **keywords: further fields of `ScanInputs`, `ScanOptions` and `Alignment`.
    """

    def fields(of: Any, names: Sequence[str]) -> Any:
        return of(**{name: keywords.pop(name) for name in names if name in keywords})

    inputs = fields(functools.partial(ScanInputs, *arrays), ScanInputs._fields)
    options = fields(ScanOptions, tuple(ScanOptions.__dataclass_fields__))
    alignment = Alignment(**keywords)
    return sequence.scan_with_loss(rule, inputs, options, alignment)


def span(gate: Gate) -> tuple[float, float]:
    """From where to where random values of a gate lie."""
    if gate.role in _SPANS:
        return _SPANS[gate.role]
    if gate.range == "log_unit":
        return -0.3, 0.0
    if gate.range == "bounded" and math.isfinite(gate.upper):
        return 0.1 * gate.upper, 0.9 * gate.upper
    if gate.range == "real":
        return gate.value - 1, gate.value + 1
    return 0.5 * gate.value, 2.5 * gate.value
