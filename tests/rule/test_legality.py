"""Every condition on a rule and on a call: refused before anything is traced, with a way out."""

import ast
import functools
import importlib
import pathlib
import types

import jax
import numpy as np
import pytest

import miras
from miras.analysis.refusals import REFUSALS, Refusal, markdown
from miras.testing import random_inputs

CASES = {
    f"{axis}: {' '.join(case.as_overrides())}": case
    for axis, cases in REFUSALS.items()
    for case in cases
}
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "legality.md"


def call(parts, options):
    """A rule, and a call with it."""
    rule = miras.Rule(**parts)
    how = dict(options)
    k_write, terms = how.pop("k_write", False), how.pop("terms", None)
    W0, q, k, v, gates = random_inputs(rule, terms=terms)
    return miras.scan(rule, W0, q, k, v, gates, k_write=k if k_write else None, chunk=2, **how)


@pytest.fixture
def traced(monkeypatch):
    """The rules that a backend has traced."""
    found = []

    def reached(rule, *args, **options):
        found.append(rule)
        raise RuntimeError("a backend was reached")

    scan = importlib.import_module("miras.sequence.scan")
    monkeypatch.setattr(scan, "_run", reached)
    monkeypatch.setattr(scan, "attend_to_cache", reached)
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_illegal_combination_is_refused_before_it_is_traced(case, traced):
    verdict = case.verdict()
    with pytest.raises(miras.ConfigError) as refused:
        call(case.rule, case.call)
    assert str(refused.value) == verdict.reason == f"{verdict.why}: {verdict.instead}."
    assert not traced
    if not case.call:
        with pytest.raises(miras.ConfigError):
            miras.Rule(**case.rule)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_reason_names_what_was_asked_and_the_fix_which_is_legal(case, traced):
    verdict = case.verdict()
    assert any(word in verdict.why for word in words(case.rule) | words(case.call))
    assert all(word in verdict.instead for word in words(changed(case)))
    with pytest.raises(RuntimeError, match="a backend was reached"):
        call(*case.fixed())


def changed(case: Refusal):
    """The fix without what it leaves as it was."""
    before = {**case.rule, **case.call}

    def new(name, value):
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict) and value["kind"] == old["kind"]:
            return {k: v for k, v in value.items() if (k, v) not in old.items() and k != "kind"}
        if isinstance(value, dict) and value["kind"] == old:
            return {k: v for k, v in value.items() if k != "kind"}
        return value

    return {name: new(name, value) for name, value in case.fix.items()}


def words(parts) -> set[str]:
    """The values in a rule or call, as messages write them."""
    return {str(leaf) for leaf in jax.tree.leaves(dict(parts))}


def sources() -> list[pathlib.Path]:
    """The files in which conditions are stated: across axes, and those of the parts."""
    package = pathlib.Path(miras.__file__).parent
    axes = ("memory", "bias", "retention", "optim")
    files = (path for axis in axes for path in sorted((package / axis).glob("*.py")))
    return [package / "rule" / "legality.py", *files]


def _place(path: pathlib.Path) -> str:
    return f"{path.parent.name}/{path.name}"


@functools.cache
def conditions() -> dict[tuple[str, int], str]:
    """Each condition: the file and line of its yield, and its function."""
    return {
        (_place(path), node.lineno): function.name
        for path in sources()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        and (function.name == "conditions" or path.name == "legality.py")
        for node in ast.walk(function)
        if isinstance(node, ast.Yield)
    }


def condition_of(case: Refusal) -> tuple[str, int]:
    """The file and line of the condition that a case does not meet."""
    verdicts = case.verdicts()
    next(condition for condition in verdicts if not condition.legal)
    innermost = verdicts
    while isinstance(innermost.gi_yieldfrom, types.GeneratorType):
        innermost = innermost.gi_yieldfrom
    name = _place(pathlib.Path(innermost.gi_code.co_filename))
    line = innermost.gi_frame.f_lineno
    return max(place for place in conditions() if place[0] == name and place[1] <= line)


def test_every_condition_has_a_case():
    assert len(conditions()) >= 25
    met = {condition_of(case) for case in CASES.values()}
    missing = {f"{place}, {name}" for place, name in conditions().items() if place not in met}
    assert not missing, "give each a case in miras/analysis/refusals.py"


def test_no_two_cases_are_the_same():
    assert len(CASES) == sum(map(len, REFUSALS.values()))


def test_the_page_is_current():
    assert markdown() in PAGE.read_text(), "renew it: miras legality --markdown"


def test_the_widths_of_a_call_are_refused_before_it_is_traced(traced):
    rule = miras.Rule(retention="l2")
    W0, q, k, v, gates = random_inputs(rule)
    for wrong in (
        {"k": k[..., :1]},
        {"v": v[:, :1]},
        {"q": q.astype(np.int32)},
        {"gates": {**gates, "lr": gates["lr"][..., 0]}},
        {"gates": {**gates, "rate": gates["lr"]}},
        {"mask": np.ones((1, 2), bool)},
        {"segment_ids": np.zeros((1, 3))},
        {"chunk": 0},
        {"backend": "cuda"},
        {"W0": {"w2": W0["w1"]}},
    ):
        with pytest.raises(miras.ConfigError, match=r"must|use|legal|needs"):
            miras.scan(rule, **{"W0": W0, "q": q, "k": k, "v": v, "gates": gates, **wrong})
    assert not traced
