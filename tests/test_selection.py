"""The choice of tests: deterministic, with every label, and with a quick test in every folder."""

import pathlib
import re
import subprocess
import sys

import pytest

from tests import selection
from tests.backends.pallas.calls import NAMES
from tests.rules import labels

ROOT = pathlib.Path(__file__).parent


def test_a_sample_has_every_label_and_depends_on_names_alone():
    shown = {f"case {n}": {n % 7, (n * n) % 11} for n in range(50)}
    sample = selection.covering(shown)
    assert {x for name in sample for x in shown[name]} == {x for own in shown.values() for x in own}
    assert sample == selection.covering(dict(reversed(shown.items())))
    assert len(sample) < 20 < len(selection.covering(shown, share=0.5))


def test_parameters_outside_of_the_sample_are_exhaustive():
    marks = {p.id: [mark.name for mark in p.marks] for p in selection.sampled("ab", sample="b")}
    assert marks == {"a": ["exhaustive"], "b": []}


SAMPLED = """
import pytest
from tests.selection import leave_out, mark_exhaustive

def pytest_collection_modifyitems(config, items):
    mark_exhaustive(items)
    leave_out(config, items)
"""
PRODUCTS = """
import pytest

@pytest.mark.sample(0.2)
@pytest.mark.parametrize("n", range(100))
def test_one(n):
    pass

@pytest.mark.sample(0.0)
@pytest.mark.parametrize("m", range(10))
@pytest.mark.parametrize(("n", "square"), [(n, n * n) for n in range(10)])
def test_two(n, square, m):
    pass

@pytest.mark.sample(0.0)
@pytest.mark.parametrize("n", range(10))
def test_none(n):
    pass
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_share_of_cases_is_left_and_every_value_of_several_parameters(tmp_path):
    (tmp_path / "conftest.py").write_text(SAMPLED)
    (tmp_path / "test_products.py").write_text(PRODUCTS)
    marks = "markers =\n    sample(share): of cases\n    exhaustive: the others\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT.parent}\n{marks}")

    def collected(*words):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *words]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return re.findall(r"::test_(\w+)\[(.*)\]", found.stdout)

    cases = collected()
    others = collected("-m", "exhaustive")
    assert len(cases) + len(others) == 210
    name, case = others[0]
    assert collected(f"test_products.py::test_{name}[{case}]") == [(name, case)]
    assert 10 < sum(name == "one" for name, _ in cases) < 30
    assert sum(name == "none" for name, _ in cases) == 1
    two = [case.split("-") for name, case in cases if name == "two"]
    assert len(two) < 30
    for values in zip(*two):
        assert len(set(values)) == 10


def test_the_sample_of_presets_in_kernels_has_every_member():
    sample = selection.covering({name: labels(name) for name in NAMES})
    wanted = {label for name in NAMES for label in labels(name)}
    assert {label for name in sample for label in labels(name)} == wanted


def test_every_folder_has_a_quick_test(request):
    quick_of = request.config.stash[selection.QUICK]
    files = {path.relative_to(ROOT.parent).as_posix() for path in ROOT.rglob("test_*.py")}
    if not files <= set(quick_of):
        pytest.skip("only a run of all files shows it")
    quick = {pathlib.Path(file).parent for file, count in quick_of.items() if count}
    folders = {pathlib.Path(file).parent for file in files}
    assert folders <= quick, folders - quick
