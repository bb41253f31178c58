"""Recipes: sizes, tokens and meshes are what their names say, and they train any preset."""

import dataclasses
import json
import pathlib

import pytest

from miras.analysis.costs import costs
from miras.analysis.plan.job import Job
from miras.analysis.plan.memory import step_memory
from miras.analysis.plan.slices import planned_slice
from miras.cli.main import main
from miras.cli.runs import run_config
from miras.errors import ConfigError
from miras.parallel.slices import mesh_of, parse_slice
from miras.presets import PRESETS, preset
from miras.recipes import find, register
from miras.recipes.corpora import CORPORA
from miras.train.config import RunConfig
from miras.train.sharding import check_fits

OWN = ("miras-170m-15b", "miras-340m-15b", "miras-760m-30b", "miras-1.3b-100b")


@pytest.mark.parametrize("name", OWN)
def test_the_size_and_the_tokens_are_those_of_the_name(name):
    _, size, tokens = name.upper().split("-")
    unit = {"M": 1e6, "B": 1e9}
    recipe = find(name)
    config = recipe.build(preset("yaad"))
    assert recipe.parameters == float(size[:-1]) * unit[size[-1]]
    assert recipe.tokens == float(tokens[:-1]) * unit[tokens[-1]]
    assert costs(config.model).parameters == pytest.approx(recipe.parameters, rel=0.1)
    update = config.train.accumulate * config.data.batch * config.data.sequence
    assert 0 <= config.train.steps * update - recipe.tokens < update == 2**19


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_is_of_any_preset(name):
    layers = find(name).build(preset("yaad")).model.layers
    for other in PRESETS.values():
        config = find(name).build(other.build())
        assert config.model.layers == layers
        assert config.model.rule == other.build().rule


@pytest.mark.parametrize("name", OWN)
def test_the_mesh_of_each_slice_divides_the_run(name):
    config = find(name).build(preset("yaad"))
    for each in find(name).slices:
        found = parse_slice(each)
        sizes = mesh_of(found, config.data.batch).sizes(found.devices)
        check_fits(config, sizes)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("other", ["yaad", "gated_deltanet"])
def test_the_plan_says_that_a_step_fits_on_the_smallest_slices(name, other):
    config = find(name).build(preset(other))
    slices = [parse_slice(each) for each in find(name).slices]
    for generation in {found.generation for found in slices}:
        own = [found for found in slices if found.generation == generation]
        least = min(own, key=lambda found: found.devices)
        run = dataclasses.replace(config, mesh=mesh_of(least, config.data.batch))
        on = planned_slice(least.name)
        assert step_memory(Job(run, on)).peak < 0.8 * on.chip.hbm


def test_the_rates_are_those_of_the_papers():
    rates = [find(name).build(preset("yaad")).train.learning_rate for name in OWN]
    assert rates == [3e-3, 1.5e-3, 1.25e-3, 1e-3]


def test_the_data_is_the_set_that_the_commands_of_its_name_prepare():
    for corpus in CORPORA.values():
        assert f"--out {corpus.name}" in corpus.prepare
        assert corpus.tokenizer.startswith(f"{corpus.name}/tokenizer.")
    for name in OWN:
        data = find(name).build(preset("yaad")).data
        assert data.source in CORPORA
        assert data.sequence == CORPORA[data.source].sequence


def test_overrides_come_after_a_recipe_and_the_mesh_after_both():
    overrides = ["train.steps=7", "data.batch=64", "layers=2", "mesh.tensor=8", "mesh.fsdp=32"]
    config = run_config("moneta", overrides, None, recipe="miras-340m-15b", on="v5e-256")
    assert (config.train.steps, config.data.batch, config.model.layers) == (7, 64, 2)
    assert config.model.width == 1024
    assert config.model.rule == preset("moneta").rule
    assert (config.mesh.fsdp, config.mesh.tensor) == (32, 8)
    plain = run_config("moneta", [], None, recipe="miras-340m-15b", on="v5e-256")
    assert (plain.mesh.fsdp, plain.mesh.tensor) == (128, 2)
    assert plain.model.vocab == 32_000  # the tokenizer is not here


def test_another_copy_of_the_data_brings_its_tokenizer():
    config = run_config("yaad", [], "gs://bucket/copy", recipe=OWN[1])
    assert config.data.source == "gs://bucket/copy"
    assert config.data.tokenizer == "gs://bucket/copy/tokenizer.model"
    own = run_config("yaad", ["tokenizer=mine.json"], "gs://bucket/copy", recipe=OWN[1])
    assert own.data.tokenizer == "mine.json"


def test_a_slice_needs_no_recipe():
    config = run_config("yaad", ["data.batch=32"], None, on="2xv5e-16")
    assert (config.mesh.data, config.mesh.slices, config.mesh.fsdp) == (2, 2, 16)


def test_an_unknown_recipe_names_the_nearest(refused):
    told = refused("train", "--recipe", "miras-340m-15")
    assert "did you mean 'miras-340m-15b'" in told
    told = refused("train", "--recipe", "miras-340m-15b", "--on", "v5e-17")
    assert "'v5e-17'" in told


def test_a_name_is_registered_once():
    with pytest.raises(ConfigError, match="is already registered"):
        register(OWN[0], parameters=1, tokens=1, source="")(lambda model: RunConfig(model))
    with pytest.raises(ConfigError, match="lower-case letters"):
        register("Mine!", parameters=1, tokens=1, source="")


PLUGIN = """
import dataclasses
from miras.data import DataConfig
from miras.recipes import register
from miras.train import RunConfig, TrainConfig

@register("tiny_of_a_test", parameters=1e4, tokens=1e3, source="a test")
def tiny(model):
    model = dataclasses.replace(model, layers=2, width=16, heads=2, chunk=8)
    data = DataConfig(source=SOURCE, sequence=32, batch=2, validation=0.2)
    return RunConfig(model, data, TrainConfig(steps=2, eval_batches=2))
"""


@pytest.fixture(scope="module")
def tiny(sea, tmp_path_factory):
    from miras.recipes.registry import _recipes

    path = tmp_path_factory.mktemp("plugin") / "tiny.py"
    path.write_text(PLUGIN.replace("SOURCE", repr(str(sea))))
    yield path
    _recipes.pop("tiny_of_a_test", None)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_a_recipe_of_a_plugin_trains_and_resumes(tiny, tmp_path, capsys):
    argv = ["train", "linear_attention", "--recipe", "tiny_of_a_test", "layers=1"]
    argv += ["--plugin", str(tiny), "--out", str(tmp_path / "run")]
    assert main(argv) == 0
    assert main(argv) == 0
    assert "is finished: 2 of 2 steps" in capsys.readouterr().out
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["model"]["layers"] == 1
    assert saved["train"]["steps"] == 2


def test_a_dry_run_takes_a_step_and_writes_nothing(tiny, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    argv = ["train", "linear_attention", "--recipe", "tiny_of_a_test", "--plugin", str(tiny)]
    assert main([*argv, "--on", "v5e-4", "--dry-run", "batch=8", "vocab=64"]) == 0
    told = capsys.readouterr().out
    config = json.loads(told[: told.index("\n}") + 2])
    assert config["train"]["steps"] == 2
    lines = dict(line.split(": ", 1) for line in told[told.index("\n}") + 2 :].split("\n") if line)
    assert lines["tokens"].startswith("512 (2 updates of 256)")
    assert lines["mesh"] == "fsdp=4 on v5e-4: 4 chips of 1 host"
    assert lines["batch"] == "8 rows of 32 tokens; 2 rows of 32 a device"
    assert lines["step"].startswith("1 of 2 layers, 1 row of 32 random tokens on 1 cpu: loss 4.")
    assert int(lines["parameters"].replace(",", "")) > 64 * 16
    assert list(folder.iterdir()) == []


def test_a_dry_run_names_what_the_slice_cannot_split(tiny, refused):
    argv = ["train", "linear_attention", "--recipe", "tiny_of_a_test", "--plugin", str(tiny)]
    told = refused(*argv, "--on", "v5e-16", "--dry-run")
    assert "heads" in told
    assert "mesh.tensor" in told


def test_the_table_of_recipes(capsys):
    assert main(["recipes"]) == 0
    told = capsys.readouterr().out
    for name in OWN:
        assert name in told
    assert "v5e-16/64/256" in told


def test_the_page_has_the_commands_that_prepare_the_data():
    page = pathlib.Path(__file__).parents[2] / "docs" / "training.md"
    for corpus in CORPORA.values():
        assert corpus.prepare in page.read_text()
        assert corpus.download.partition(" && ")[0] in page.read_text()
