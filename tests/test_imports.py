"""The directions of imports: a package imports lower packages only, and no modules form a cycle.

Imports inside functions and under `TYPE_CHECKING` count. A name imported from a package counts as
an import of the module that defines it, so a re-export in an `__init__` hides nothing; imports made
by such an `__init__` are checked like those of any module. `miras/__init__.py` alone is exempt: it
re-exports names of all packages and defines none but the version, so what a module takes from it
counts as taken from the module that defines it.
"""

import ast
import functools
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# From low to high. Packages on one line do not import each other.
ORDER = """
errors
array_typing
runtime
config
parallel
parts
memory bias retention optim
rule
engine
backends
attention
sequence
layers
mixers
models
presets
data
tasks
train
recipes launch interop
analysis
testing
cli
"""
LEVEL = {name: i for i, line in enumerate(ORDER.strip().splitlines()) for name in line.split()}
# retention hands its decay to the algorithms' coefficients, which are functions of arrays alone.
ALLOWED = {("miras.retention.base", "miras.optim.coefficients")}
FACADE = {"miras", "miras.__main__"}


@functools.cache
def _trees():
    """The syntax tree of each module; in a function, so that collecting tests parses nothing."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text()
        )
        for path in ROOT.glob("miras/**/*.py")
    }


@functools.cache
def _defined_in(module, name):
    """The module that defines what `from module import name` gives."""
    if f"{module}.{name}" in _trees():
        return f"{module}.{name}"
    for node in ast.walk(_trees()[module]):
        if isinstance(node, ast.ImportFrom) and node.module in _trees():
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _defined_in(node.module, alias.name)
    return module


def _imported(node):
    """The modules of the package that a node of a syntax tree imports."""
    match node:
        case ast.Import():
            return {alias.name for alias in node.names} & set(_trees())
        case ast.ImportFrom() if node.level:
            raise AssertionError("a relative import")
        case ast.ImportFrom() if node.module in _trees():
            return {_defined_in(node.module, alias.name) for alias in node.names}
        case ast.Attribute(value=ast.Name(id="miras")):
            return {_defined_in("miras", node.attr)}
    return set()


def _edges(module, tree):
    """All imports of a module within the package, as pairs (importer, imported)."""
    if module in FACADE:
        return set()
    found = set().union(*(_imported(node) for node in ast.walk(tree)))
    return {(module, other) for other in found - FACADE - {module}}


def _upward(edges):
    """Imports of a package that is not lower than the importer's."""
    packages = {edge: [module.split(".")[1] for module in edge] for edge in edges}
    upward = {edge for edge, (a, b) in packages.items() if a != b and LEVEL[b] >= LEVEL[a]}
    return upward - ALLOWED


def _cycle(edges):
    """One cycle of modules, or nothing."""
    graph = {}
    for importer, imported in edges:
        graph.setdefault(importer, set()).add(imported)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]


@functools.cache
def _all_edges():
    return set().union(*(_edges(module, tree) for module, tree in _trees().items()))


def test_every_package_has_its_place_in_the_order():
    assert {module.split(".")[1] for edge in _all_edges() for module in edge} == set(LEVEL)


def test_a_package_imports_only_lower_ones():
    assert not _upward(_all_edges())


def test_no_modules_form_a_cycle():
    assert not _cycle(_all_edges())


def test_no_exception_outlives_its_import():
    assert _all_edges() >= ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "from miras.rule.rule import Rule",
        "from miras.rule import Rule",  # by the package's re-export
        "from miras import Rule",  # by the facade
        "import miras\nmiras.Rule()",
        "import miras.rule.rule",
        "def late():\n    from miras.rule import Rule",
        "if TYPE_CHECKING:\n    from miras.rule import Rule",
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(line):
    upward = ("miras.bias.mutant", "miras.rule.rule")
    assert upward in _upward(_edges("miras.bias.mutant", ast.parse(line)))


def test_a_cycle_within_a_package_is_found():
    back = _edges("miras.bias.base", ast.parse("def late():\n    from miras.bias import L2"))
    assert set(_cycle(_all_edges() | back)) == {"miras.bias.base", "miras.bias.l2"}
