"""Outside of its package no code knows a part by its class, its kind, its fields or its gates.

Exempt are presets and what names parts as examples: the contract tests that users import, and the
smallest case of each refusal.
"""

import ast
import functools
import pathlib
import typing
from collections.abc import Iterator

import pytest

import miras
from miras.parts.gate import Role, Side

ROOT = pathlib.Path(miras.__file__).parent
PACKAGES = ("memory", "bias", "retention", "optim")
EXEMPT = (*PACKAGES, "presets", "testing")
EXAMPLES = (ROOT / "analysis" / "refusals.py",)
AXES = ("memory", "bias", "retention", "algorithm")


@functools.cache
def members() -> dict[str, type]:
    """The parts of miras by kind."""
    bases = (miras.memory.Memory, miras.bias.Bias, miras.retention.Retention, miras.optim.Algorithm)
    found = {kind: base.registry.get(kind) for base in bases for kind in base.registry.names()}
    return {kind: cls for kind, cls in found.items() if cls.__module__.startswith("miras.")}


@functools.cache
def gates() -> frozenset[str]:
    """Names of the gates that the parts declare, but for those that are words of the contract."""
    variants = [cls() for cls in members().values()]
    variants += [miras.optim.Omega(momentum=0.9), miras.retention.L2(granularity="key_value")]
    names = {gate.name for part in variants for gate in part.gates()}
    return frozenset(names - {*typing.get_args(Role), *typing.get_args(Side)})


def told(node: ast.AST) -> Iterator[str]:
    """The strings among a node's own operands."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


def breaches(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines at which a part is known by name, and by which."""
    classes = {cls.__name__ for cls in members().values()}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _of_axis(node.module or ""):
            yield from ((node.lineno, x.name) for x in node.names if x.name in classes)
        elif isinstance(node, ast.Attribute) and node.attr in classes:
            if any(ast.unparse(node.value).endswith(package) for package in PACKAGES):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Compare):
            asked = ast.unparse(node)
            names = members() if "kind" in asked else gates()
            yield from ((node.lineno, asked) for name in told(node) if name in names)
        elif isinstance(node, ast.keyword) and node.arg in AXES:
            yield from ((node.lineno, name) for name in told(node.value) if name in members())
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if isinstance(key, ast.Constant) and key.value == "kind":
                    yield from ((node.lineno, name) for name in told(value) if name in members())
        elif isinstance(node, ast.Subscript):
            yield from ((node.lineno, n) for n in told(node.slice) if n in gates())
        elif isinstance(node, ast.Call):
            yield from _in_call(node)


def _of_axis(module: str) -> bool:
    return module.split(".")[0] == "miras" and module.split(".")[1:2] in [[p] for p in PACKAGES]


def _in_call(node: ast.Call) -> Iterator[tuple[int, str]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    if name in ("get", "pop") and node.args:
        yield from ((node.lineno, n) for n in told(node.args[0]) if n in gates())
    if name in ("getattr", "hasattr") and len(node.args) > 1:
        part = ast.unparse(node.args[0]).rpartition(".")[2]
        if part in (*AXES, "part") and isinstance(node.args[1], ast.Constant):
            yield node.lineno, ast.unparse(node)


def sources() -> list[pathlib.Path]:
    """The files of miras in which parts have no names."""
    files = [path for path in ROOT.rglob("*.py") if path not in EXAMPLES]
    return [path for path in files if path.relative_to(ROOT).parts[0] not in EXEMPT]


def test_no_part_is_known_by_name():
    found = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        for line, name in breaches(ast.parse(path.read_text()))
    }
    assert not found, "ask a trait of the part, or find the gate by its role"


@pytest.mark.parametrize(
    "code",
    [
        "from miras.optim import Newton",
        "isinstance(x, miras.memory.KV)",
        "rule.kinds()['memory'] == 'kv'",
        "rule.algorithm.kind in ('newton', 'gd')",
        "getattr(rule.memory, 'count', None)",
        "gates['lr']",
        "gates.get('log_momentum')",
        "gate.name == 'log_decay'",
        "Rule(memory='mlp')",
        "{'kind': 'muon'}",
    ],
)
def test_each_way_is_seen(code):
    assert list(breaches(ast.parse(code)))
