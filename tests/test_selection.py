"""The choice of tests: deterministic, with every label, and with a quick test in every folder."""

import pathlib
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


def test_the_sample_of_presets_in_kernels_has_every_member():
    sample = selection.covering({name: labels(name) for name in NAMES})
    wanted = {label for name in NAMES for label in labels(name)}
    assert {label for name in sample for label in labels(name)} == wanted


@pytest.mark.slow
@pytest.mark.multiprocess
def test_every_folder_has_a_quick_test():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "quick"]
    found = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=True)
    quick = {pathlib.Path(line.partition("::")[0]).parent for line in found.stdout.splitlines()}
    folders = {path.parent.relative_to(ROOT.parent) for path in ROOT.rglob("test_*.py")}
    assert folders <= quick, folders - quick
