"""The tree of models: made from the registry, printed and drawn by `miras models`."""

import pytest

import miras
from miras.analysis.lineage import lineage
from miras.cli.main import main
from miras.presets import PRESETS
from miras.presets.registry import register


def _by_name():
    return {model.preset.name: model for model in lineage()}


def test_every_preset_follows_one_that_stands_before_it_and_is_not_younger():
    tree = lineage()
    assert sorted(model.preset.name for model in tree) == sorted(PRESETS)
    seen = {}
    for model in tree:
        if model.parent is None:
            assert not seen  # one root
        else:
            parent = seen[model.parent]
            assert parent.date <= model.date
            assert parent.depth == model.depth - 1
            assert model.changes
        seen[model.preset.name] = model


def test_known_steps_are_found():
    found = _by_name()
    steps = {name: (found[name].parent, found[name].changes) for name in found}
    assert steps["deltanet"][0] == "linear_attention"
    assert steps["gated_deltanet"] == ("deltanet", ("retention l2", "order decay_first"))
    assert steps["kda"] == ("gated_deltanet", ("granularity key",))
    assert steps["titans_mac"] == ("titans_lmm", ("architecture mac", "persistent 4"))
    assert steps["yaad_h"] == ("yaad", ("pattern MS",))
    assert found["yaad"].family == found["moneta"].family == "Deep memories"
    assert 2025.2 < found["yaad"].date < 2025.4


@pytest.fixture
def own_preset():
    @register("Mine")
    def mine():
        """Without a paper, and with a block of its own."""
        return miras.override(miras.preset("kda"), "blocks.N=yaad", "pattern=MN", "layers=4")

    yield "mine"
    del PRESETS["mine"]


def test_a_preset_without_a_paper_comes_last(own_preset):
    found = _by_name()
    assert found[own_preset].parent == "kda"
    assert found[own_preset].date == max(model.date for model in found.values())
    assert "pattern MN" in found[own_preset].changes


def test_the_command_prints_the_tree_and_draws_it(tmp_path, capsys):
    out = tmp_path / "models.png"
    assert main(["models", "--plot", str(out)]) == 0
    told = capsys.readouterr().out
    assert "  gated_deltanet" in told
    assert "retention l2, order decay_first" in " ".join(told.split())
    assert out.read_bytes().startswith(b"\x89PNG")
