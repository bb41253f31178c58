"""The smallest example of every invalid combination, with a fix: the table of docs/legality.md.

Why each is invalid is in the parts' `conditions` and in `miras.rule.legality`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from miras.config import coerce, field_types
from miras.parts.part import Condition
from miras.rule import legality
from miras.rule.rule import Rule

_COLUMNS = ("combination", "why", "instead")

Parts = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An illegal combination.

    Attributes:
        rule: arguments of `Rule`, each part as a kind or a dict with a `kind`.
        call: arguments of an invalid call: `refine` and `exact` as for `miras.scan`;
            `terms`, R of keys [B, T, H, R, Dk]; `k_write`, whether there are such keys.
        fix: replacements of arguments of the rule or of the call that make it legal.
    """

    rule: Parts
    call: Parts
    fix: Parts

    def fixed(self) -> tuple[Parts, Parts]:
        """The rule and the call after the fix."""
        call = {name: self.fix.get(name, value) for name, value in self.call.items()}
        changes = {name: value for name, value in self.fix.items() if name not in self.call}
        return {**self.rule, **changes}, call

    def verdicts(self) -> Iterator[Condition]:
        """Every condition on it, in the order in which they are checked."""
        rule = _unchecked(self.rule)
        yield from legality.of_rule(rule)
        options = {"refine": 0, "exact": False, "terms": None, "k_write": False, **self.call}
        yield from legality.of_semantics(rule, options["refine"], options["exact"])
        yield from legality.of_call(rule, options["terms"], options["k_write"])

    def verdict(self) -> Condition:
        """The condition that it violates."""
        return next(condition for condition in self.verdicts() if not condition.legal)

    def as_overrides(self) -> list[str]:
        """The combination as overrides of the default rule, and as arguments of the call."""
        words = []
        for name, value in self.rule.items():
            fields = dict(value) if isinstance(value, Mapping) else {"kind": value}
            words.append(f"{name}={fields.pop('kind')}")
            words += [f"{name}.{field}={_word(x)}" for field, x in fields.items()]
        return words + [_argument(name, value) for name, value in self.call.items()]


def _unchecked(parts: Parts) -> Rule:
    """A rule of which nothing is asked but the types of its fields."""
    rule = object.__new__(Rule)
    for field in dataclasses.fields(Rule):
        value = coerce(parts.get(field.name, field.default), field_types(Rule)[field.name], "rule")
        object.__setattr__(rule, field.name, value)
    return rule


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _argument(name: str, value: Any) -> str:
    if name == "terms":
        return f"k [B, T, H, {value}, Dk]"
    return "k_write" if name == "k_write" else f"{name}={value}"


def _of(fix: Parts, /, **rule: Any) -> Refusal:
    """A rule that raises ConfigError when it is built."""
    return Refusal(rule, {}, fix)


def _when(fix: Parts, call: Parts, /, **rule: Any) -> Refusal:
    """A call that raises ConfigError before tracing."""
    return Refusal(rule, call, fix)


_KEY, _SLOT = ({"kind": "l2", "granularity": side} for side in ("key", "slot"))
_OMEGA, _MUON = {"kind": "omega", "window": 4}, {"kind": "muon", "every": "chunk"}
_MUON_KEY = {"kind": "muon", "lr_at": "gradient", "granularity": "key"}
_AVERAGED = {"kind": "gd", "averaged": True}
_TIED = {"kind": "slots", "write": "tied"}

REFUSALS: dict[str, tuple[Refusal, ...]] = {
    "Memory": (
        _of({"algorithm": "nonparametric"}, memory="kv", algorithm="gd"),
        _of({"memory": "kv"}, memory="matrix", algorithm="nonparametric"),
        _of({"bias": "l2"}, memory="kv", algorithm="nonparametric", bias="huber"),
        _of({"retention": "none"}, memory="kv", algorithm="nonparametric", retention="l2"),
        _of({"order": "learn_first"}, memory="kv", algorithm="nonparametric", order="decay_first"),
        _of({"read": "token"}, memory="kv", algorithm="nonparametric", read="snapshot"),
        _of({"bias": "dot"}, memory="slots", bias="l2"),
        _of({"algorithm": "gd"}, memory="slots", bias="dot", algorithm="muon"),
        _of({"algorithm": "gd"}, memory="slots", bias="dot",
            algorithm={"kind": "muon", "lr_at": "gradient", "window": 2}),
        _of({"order": "learn_first"}, memory="slots", bias="dot", order="decay_first"),
        _of({"algorithm": "gd"}, memory="slots", bias="dot", algorithm="multi_step"),
        _of({"retention": _SLOT}, memory=_TIED, bias="dot", retention="l2"),
    ),
    "Retention": (
        _of({"retention": {"kind": "l2", "granularity": "head"}}, memory="matrix", retention=_SLOT),
        _of(
            {"retention": {"kind": "l2", "granularity": "value"}},
            memory={"kind": "features", "map": "taylor"},
            retention=_KEY,
        ),
        _of(
            {"algorithm": "gd"},
            retention={"kind": "l2", "discretised": True},
            algorithm="muon",
        ),
        _of(
            {"algorithm": {"kind": "gd", "granularity": "head"}},
            retention={"kind": "l2", "discretised": True},
            algorithm={"kind": "gd", "granularity": "value"},
        ),
        _of({"memory": "matrix"}, memory="mlp", retention={**_KEY, "tied": True}),
        _of({"algorithm": "gd"}, retention={**_KEY, "tied": True}, algorithm="muon"),
    ),
    "Algorithm": (
        _of({"memory": "matrix"}, memory="mlp", algorithm="implicit"),
        _of({"retention": "none"}, retention="l2", algorithm=_AVERAGED),
        _of({"bias": "l2"}, bias="huber", algorithm="newton"),
        _of({"retention": "l2"}, retention="kl", algorithm="newton"),
        _of({"retention": {"kind": "l2", "granularity": "head"}}, retention=_KEY,
            algorithm="newton"),
        _of({"algorithm": {"kind": "newton", "granularity": "head"}},
            algorithm={"kind": "newton", "granularity": "value"}),
        _of({"order": "learn_first"}, algorithm="newton", order="decay_first"),
        _of({"read": "token"}, algorithm="newton", read="snapshot"),
        _of({"retention": "l2"}, retention="kl", algorithm="multi_step"),
        _of({"retention": "l2"}, retention="kl", algorithm="dgd"),
        _of({"algorithm": "gd"}, memory="vector", algorithm="dgd"),
        _of({"algorithm": "gd"}, memory="slots", bias="dot", algorithm="dgd"),
        _of({"read": "snapshot"}, algorithm=_MUON, read="token"),
        _of({"algorithm": {**_MUON, "every": "token"}}, retention="kl", algorithm=_MUON,
            read="snapshot"),
        _of({"retention": {"kind": "rows", "link_every": "chunk"}}, retention="rows",
            algorithm=_MUON, read="snapshot"),
        _of({"algorithm": {"kind": "gd", "granularity": "head"}}, memory="mlp",
            algorithm={"kind": "gd", "granularity": "key"}),
        _of({"memory": "matrix"}, memory={"kind": "features", "map": "taylor"},
            algorithm={"kind": "gd", "granularity": "key"}),
        _of({"algorithm": {"kind": "omega", "granularity": "head"}},
            algorithm={"kind": "omega", "granularity": "key"}),
        _of({"algorithm": {**_MUON_KEY, "granularity": "head", "window": 2}},
            algorithm={**_MUON_KEY, "window": 2}),
        _of({"algorithm": {"kind": "gd", "granularity": "head"}}, retention="elastic_net",
            algorithm={"kind": "gd", "granularity": "value"}),
        _of({"algorithm": {"kind": "gd", "granularity": "head"}},
            retention={"kind": "kl", "coupled": True},
            algorithm={"kind": "gd", "granularity": "value"}),
    ),
    "Keys that a rule makes": (
        _of({"memory": "matrix"}, memory="mlp", bias="gated_l2"),
        _of({"algorithm": "gd"}, bias="gated_l2", algorithm="implicit"),
        _of({"memory": "matrix"}, memory="mlp", algorithm="preconditioned"),
        _of({"memory": "matrix"}, memory={"kind": "features", "map": "taylor"},
            algorithm="preconditioned"),
        _of({"retention": "l2"}, retention="trapezoidal", algorithm="preconditioned"),
        _of({"algorithm": "gd"}, retention="trapezoidal", algorithm="multi_step"),
    ),
    "Order": (
        _of({"order": "learn_first"}, retention="kl", order="decay_first"),
        _of({"order": "learn_first"}, algorithm=_OMEGA, order="decay_first"),
        _of({"order": "learn_first"}, algorithm=_MUON, order="decay_first", read="snapshot"),
    ),
    "Refinement": (
        _when({"refine": 0}, {"refine": -1}),
        _when({"refine": 0}, {"refine": 1, "exact": True}),
        _when({"algorithm": {**_AVERAGED, "averaged": False}}, {"refine": 1}, algorithm=_AVERAGED),
        _when({"retention": {"kind": "kl", "link_every": "token"}}, {"refine": 1},
              retention={"kind": "kl", "link_every": "chunk"}),
        _when({"algorithm": {**_OMEGA, "window": 1}}, {"refine": 1}, algorithm=_OMEGA),
        _when({"refine": 0}, {"refine": 1}, algorithm=_MUON, read="snapshot"),
        _when({"refine": 0}, {"refine": 1}, algorithm="newton"),
        _when({"refine": 0}, {"refine": 1}, memory="kv", algorithm="nonparametric"),
        _when({"refine": 0}, {"refine": 1}, memory="slots", bias="dot"),
        _when({"read": "token"}, {"refine": 1}, read="snapshot"),
    ),
    "Closed form": (
        _when({"memory": "matrix"}, {"exact": True}, memory="mlp"),
        _when({"bias": "l2"}, {"exact": True}, bias="huber"),
        _when({"retention": "l2"}, {"exact": True}, retention="kl"),
        _when({"exact": False}, {"exact": True}, algorithm="muon"),
        _when({"exact": False}, {"exact": True}, algorithm=_OMEGA),
        _when({"exact": False}, {"exact": True}, retention=_KEY, algorithm="momentum"),
        _when({"exact": False}, {"exact": True}, algorithm="dgd"),
        _when({"read": "token"}, {"exact": True}, read="snapshot"),
    ),
    "Several associations per token": (
        _when({"algorithm": "gd"}, {"terms": 2}, algorithm=_OMEGA),
        _when({"algorithm": "gd"}, {"terms": 2}, algorithm="muon"),
        _when({"terms": None}, {"terms": 2}, memory="slots", bias="dot"),
        _when({"terms": None}, {"terms": 2}, retention={**_KEY, "tied": True}),
        _when({"terms": None}, {"terms": 2}, algorithm="preconditioned"),
        _when({"algorithm": {"kind": "multi_step", "steps": 3}}, {"terms": 3},
              algorithm={"kind": "multi_step", "steps": 2}),
        _when({"memory": "matrix"}, {"k_write": True}, memory="mlp"),
        _when({"algorithm": "gd"}, {"k_write": True}, algorithm=_OMEGA),
        _when({"algorithm": "gd"}, {"k_write": True}, algorithm="newton"),
        _when({"retention": "l2"}, {"k_write": True}, retention="trapezoidal"),
    ),
}  # fmt: skip


def tables() -> Iterator[Table]:
    """A table for each axis: the combination, the reason, and the alternative."""
    for axis, refusals in REFUSALS.items():
        rows = Table(*_COLUMNS, title=axis, box=SIMPLE_HEAD, title_justify="left", expand=True)
        for refusal in refusals:
            verdict = refusal.verdict()
            cells = "\n".join(refusal.as_overrides()), verdict.why, verdict.instead
            rows.add_row(*map(escape, cells))
        yield rows


def markdown() -> str:
    """The tables in Markdown: those of docs/legality.md."""
    lines = []
    for axis, refusals in REFUSALS.items():
        lines += [f"## {axis}", "", f"| {' | '.join(_COLUMNS)} |", "|---|---|---|"]
        for refusal in refusals:
            verdict = refusal.verdict()
            combination = "<br>".join(f"`{word}`" for word in refusal.as_overrides())
            lines.append(f"| {combination} | {verdict.why} | {verdict.instead} |")
        lines.append("")
    return "\n".join(lines).rstrip()
