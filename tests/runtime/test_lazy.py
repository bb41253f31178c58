"""What starts quickly: `import miras`, help and tables import no more than they need."""

import ast
import importlib
import pathlib
import resource
import subprocess
import sys

import pytest

from miras.cli.main import main

ROOT = pathlib.Path(__file__).parents[2]
LAZY = [
    ".".join(path.parent.relative_to(ROOT).parts)
    for path in sorted((ROOT / "miras").rglob("__init__.py"))
    if "lazy.package(" in path.read_text()
]
COMMANDS = (
    "train", "eval", "presets", "legality", "describe", "generate", "stream", "match", "ablate",
    "staleness", "inspect", "strength",
)  # fmt: skip
HEAVY = {
    "jax", "jaxlib", "flax", "numpy", "optax", "orbax", "grain", "tensorflow_datasets",
    "matplotlib", "rich", "scipy", "safetensors",
}  # fmt: skip


def python(script: str, *argv: str) -> float:
    """Runs a script in a process of its own; the CPU time that it took, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


IMPORTED = """
import sys, miras
from miras.cli.main import main
commands = [line.split() for line in sys.argv[2:]]
for command in commands:
    assert main(command) == 0
found = set(sys.argv[1].split()) & {name.split(".")[0] for name in sys.modules}
assert not found, found
"""


def test_the_import_and_help_load_no_library():
    python("import miras\n" + IMPORTED, " ".join(HEAVY))
    helps = ["--help", "--version", *(f"{command} --help" for command in COMMANDS)]
    python(IMPORTED, " ".join(HEAVY), *helps)


def test_every_command_is_looked_at(capsys):
    main(["--help"])
    told = capsys.readouterr().out
    listed = [line.split()[0] for line in told.splitlines() if line.startswith("    ")]
    assert set(COMMANDS) <= set(listed)


@pytest.mark.parametrize("command", ["presets", "presets --markdown"])
def test_the_table_of_presets_builds_no_model(command):
    script = IMPORTED + "assert 'miras.models.language_model' not in sys.modules\n"
    python(script, "flax optax orbax grain tensorflow_datasets matplotlib", command)


@pytest.mark.parametrize(("command", "limit"), [("--help", 0.3), ("presets", 2.0)])
def test_what_is_quick_stays_so(command, limit):
    """CPU time, the least of some runs, since other processes share the caches."""
    script = "import sys; from miras.cli.main import main; sys.exit(main(sys.argv[1:]))"
    assert min(python(script, command) for _ in range(3)) < limit


def test_these_packages_are_lazy():
    assert {"miras", "miras.train", "miras.models", "miras.layers", "miras.analysis.stream"} <= set(
        LAZY
    )


@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_package_has_the_names_that_type_checkers_see(name):
    package = importlib.import_module(name)
    tree = ast.parse(pathlib.Path(str(package.__file__)).read_text())
    (checking,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for node in checking.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(typed) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for public, home in typed.items():
        found = getattr(package, public)
        expected = getattr(importlib.import_module(str(home)), public)
        assert found is expected, public
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        getattr(package, "no_such_name")  # noqa: B009
    with pytest.raises(ImportError):
        exec(f"from {name} import no_such_name")


@pytest.mark.parametrize("order", ["miras.sequence.scan", "miras.sequence.read"])
def test_a_submodule_does_not_hide_the_function_of_its_name(order):
    package, _, name = order.rpartition(".")
    script = f"import {order}\nfrom {package} import {name}\nassert callable({name})\n"
    python(script + f"from {order} import {name} as same\nassert same is {name}\n")


def test_submodules_are_attributes_of_the_package():
    python("import miras\nmiras.train.train, miras.models.LanguageModel, miras.config.override")
