"""Plugins that a run of an earlier version kept import modules by the paths of that version."""

import ast
import importlib
import pathlib

import jax.numpy as jnp
import pytest

import miras
from miras.config import old_imports, plugins

ROOT = pathlib.Path(__file__).parents[2]
PLUGIN = '''
import dataclasses
import jax.numpy as jnp
import miras, miras.registry
import miras.formula as f
from miras import gate as gates
from miras.engine import State, scan as run_scan
from miras.formula import BiasFormula
from miras.gate import Gate
from miras.typing import Array

assert miras.gate.Gate is Gate and gates.Gate is Gate and f.BiasFormula is BiasFormula
assert miras.engine.scan is run_scan and State is miras.State
assert miras.registry.Registry is type(miras.bias.Bias.registry)

@miras.bias.register("kept_by_an_old_run")
@dataclasses.dataclass(frozen=True)
class Kept(miras.bias.Bias):
    """|r|_2^2 / 2."""

    def loss(self, pred: Array, target: Array, threshold: Array) -> Array:
        from miras.typing import Array as late

        assert late is Array
        return jnp.sum((pred - target) ** 2, axis=-1) / 2
'''


@pytest.fixture
def no_plugins(monkeypatch):
    registry = miras.bias.Bias.registry
    monkeypatch.setattr(registry, "_members", dict(registry._members))
    monkeypatch.setattr(plugins, "_files", {})
    monkeypatch.setattr(plugins, "_modules", [])


@pytest.mark.usefixtures("no_plugins")
def test_a_run_folder_with_a_plugin_of_an_earlier_version_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRAS_TRUST_PLUGINS", "1")
    (tmp_path / "old.py").write_text(PLUGIN)
    plugins.restore(tmp_path)
    bias = miras.Rule(bias="kept_by_an_old_run").bias
    assert bias.loss(jnp.ones(2), jnp.ones(2), {}) == 0
    with pytest.raises(ImportError):
        importlib.import_module("miras.gate")


@pytest.mark.parametrize("old", old_imports.MODULES)
def test_modules_of_the_table_are_at_their_new_paths(old):
    importlib.import_module(old_imports.MODULES[old])
    assert not (ROOT / (old.replace(".", "/") + ".py")).exists()


@pytest.mark.parametrize("old", old_imports.NAMES)
def test_names_of_the_table_are_at_their_new_paths(old):
    module, _, name = old_imports.NAMES[old].rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def test_what_is_not_in_the_table_stays_as_it_is():
    text = "import os.path\nfrom . import gate\nfrom miras.bias import L2 as l2\nx.gate.Gate().y"
    assert ast.unparse(old_imports.translate(ast.parse(text))) == text


def test_the_changelog_lists_every_module_that_moved():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert [old for old in old_imports.MODULES if f"`{old}" not in text] == []
