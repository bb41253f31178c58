r"""Gates: their symbols, and a line for each: range, granularity, where it comes from.

A learned gate has the token's index, as \eta_t; a constant has that of the head where heads differ.
"""

from collections.abc import Iterator

from miras.analysis.equation.setting import EquationSetting
from miras.optim.coefficients import MIN_LOG
from miras.parts.formula import Line, number
from miras.parts.gate import Gate, Role
from miras.rule.rule import Rule

_SIDES = {"head": "per head", "slot": "per slot"}
_DEPTH = r"1 - l/(L-1) + 10^{-5}"


def symbol(gate: Gate, index: str = "t", *, by_layer: bool = False) -> str:
    """LaTeX of a gate."""
    plain = gate.name.removeprefix("log_").replace("_", "")
    base = gate.symbol or rf"\mathrm{{{plain}}}"
    if not gate.learned:
        varies = "h" if gate.spread != 1 or gate.slopes == "alibi" else ""
        index = ",".join(filter(None, (varies, "l" if by_layer else "")))
    if not index:
        return base
    return f"{base}_{index}" if len(index) == 1 else f"{base}_{{{index}}}"


def symbols(setting: EquationSetting, index: str = "t") -> dict[str, str]:
    """LaTeX of each gate of a rule, by name."""
    return {
        gate.name: symbol(gate, index, by_layer=_slower(gate, setting))
        for gate in setting.rule.gates
    }


def is_one(gate: Gate) -> bool:
    """Whether a gate is held at 1, so that a formula leaves it out."""
    return not gate.learned and gate.value == 1 and gate.slopes != "alibi"


def gate(rule: Rule, role: Role) -> Gate | None:
    """The gate of a role that one gate has."""
    return next(iter(rule.gates_of(role)), None)


def gate_lines(setting: EquationSetting) -> Iterator[Line]:
    """A line for each gate that a rule's parts declare."""
    named = symbols(setting)
    for gate in setting.rule.gates:
        yield (
            _learned(gate, named[gate.name], setting)
            if gate.learned
            else _constant(gate, named[gate.name], setting)
        )


def _learned(gate: Gate, symbol: str, setting: EquationSetting) -> Line:
    right = {
        "bounded": f"(0, {number(gate.upper)})",
        "log_unit": "(0, 1]",
        "real": r"\mathbb{R}",
    }
    start = f"{_plain(gate.value)} at the start"
    if gate.drawn:
        start = "of unit variance at the start"
    if gate.slopes == "alibi":
        start = "exp(-2^(-8 (h+1) / H)) at the start in head h of H, from 0"
    elif gate.spread != 1:
        lost = _plain(round(1 - gate.value, 12))
        start = f"1 - {lost} * {_plain(gate.spread)}^h at the start in head h, from 0"
    origin = (
        f"from the token{_rank(gate, setting)}"
        if gate.per_token
        else "learned, the same for all tokens"
    )
    told = [f"{_granularity(gate)}, {origin}", start]
    told += _notes(gate, setting)
    if gate.range == "positive":
        return Line(symbol, "0", ">", "; ".join(told))
    return Line(symbol, right[gate.range], r"\in", "; ".join(told))


def _constant(gate: Gate, symbol: str, setting: EquationSetting) -> Line:
    value = number(gate.value)
    slower = _slower(gate, setting)
    if gate.slopes == "alibi":
        value = rf"\exp(-2^{{-8 (h+1)/H}}{f' ({_DEPTH})' if slower else ''})"
    elif gate.spread != 1:
        lost = number(round(1 - gate.value, 12))
        value = rf"1 - {lost} \cdot {number(gate.spread)}^h"
    if slower and gate.slopes != "alibi":
        value = f"({value})^{{{_DEPTH}}}"
    of_head = "head h of H, from 0; " if symbol.endswith(("_h", "_{h,l}")) else ""
    of_layer = "layer l of L, from 0; " if slower else ""
    notes = [note for note in _notes(gate, setting) if "layer" not in note]
    when = f"{of_head}{of_layer}" + "; ".join(["constant", *notes])
    return Line(symbol, value, when=when)


def _granularity(gate: Gate) -> str:
    return _SIDES.get(gate.side, f"per {gate.side} channel")


def _rank(gate: Gate, setting: EquationSetting) -> str:
    ranked = gate.side != "head" and not gate.drawn and setting.layer is not None
    return f" by rank {setting.layer.gate_rank}" if ranked and setting.layer is not None else ""


def _slower(gate: Gate, setting: EquationSetting) -> bool:
    by_depth = setting.layer is not None and setting.layer.decay_by_depth
    return by_depth and gate.role == "decay" and gate.side == "head"


def _notes(gate: Gate, setting: EquationSetting) -> Iterator[str]:
    low = setting.rule.retention.min_log_decay
    if gate.role == "decay" and gate.side != "head" and low > MIN_LOG:
        yield f"at least exp({_plain(low)})"
    if _slower(gate, setting):
        yield "its log times 1 - l / (L-1) + 10^-5 in layer l of L, from 0"
    if gate.role == "rate" and setting.keys in ("product", "rwkv7") and gate.learned:
        yield "each term has its own"


def _plain(value: float) -> str:
    return f"{value:.12g}"
