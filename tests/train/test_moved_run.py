"""A run uses the tokenizer, plugins and paths that it was started with, wherever it lies."""

import json
import logging
import shutil

import pytest

from miras.cli.main import main
from miras.cli.runs import run_config
from miras.config import override
from miras.errors import ConfigError
from miras.train import evaluate_run, load_run, train
from miras.train.runs.run_folder import RunFolder
from tests.data.tokenizers.all_kinds import make


@pytest.fixture(scope="module")
def started(tiny, text, tmp_path_factory):
    """A project's folder with a run that was trained in it by relative paths, and its config."""
    project = tmp_path_factory.mktemp("project")
    kind = "byte_fallback.json"
    make(kind, project)
    shutil.copytree(text, project / "texts")
    config = tiny(
        "model.vocab=400",
        "data.source=texts",
        f"data.tokenizer={kind}",
        "train.steps=2",
        "train.warmup=1",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        train(config, "run")
    return project, config


@pytest.fixture
def project(started, tmp_path, monkeypatch):
    """A copy of it, in whose folder the process is."""
    copy = shutil.copytree(started[0], tmp_path / "project")
    origin = json.loads((copy / "run" / "origin.json").read_text())
    assert origin["directory"] == str(started[0])
    (copy / "run" / "origin.json").write_text(json.dumps(origin | {"directory": str(copy)}))
    monkeypatch.chdir(copy)
    return copy, started[1]


@pytest.mark.slow
def test_a_moved_run_is_used_without_its_originals(project, tmp_path, monkeypatch, capsys):
    folder, config = project
    (tmp_path / "elsewhere").mkdir()
    away = tmp_path / "elsewhere" / "moved"
    (folder / "run").rename(away)
    texts = (folder / "texts").rename(tmp_path / "others")
    shutil.rmtree(folder)
    (tmp_path / "elsewhere" / config.data.tokenizer).write_text("another file of this name")
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = load_run("moved")
    suffix = config.data.tokenizer.rpartition(".")[2]
    assert run.config.data.tokenizer == str(away / f"tokenizer.{suffix}")
    assert evaluate_run(run, str(texts), 1).loss > 0
    assert main(["generate", "moved", "--prompt", "x", "--length", "1"]) == 0
    assert capsys.readouterr().out.startswith("x")
    assert main(["eval", "moved", "--batches", "1"]) == 2  # its own text is gone
    assert "texts" in capsys.readouterr().err


def test_relative_paths_are_those_of_the_start(project, tmp_path, monkeypatch):
    folder, _ = project
    monkeypatch.chdir(tmp_path)
    run = load_run(folder / "run")
    assert run.config.data.source == str(folder / "texts")
    assert evaluate_run(run, batches=1).loss > 0
    assert RunFolder(folder / "run").read_config().data.source == "texts"


def test_another_tokenizer_is_refused(project, refused):
    folder, config = project
    path = folder / config.data.tokenizer
    whole = path.read_bytes()
    path.write_bytes(whole + b" ")
    load_run("run")  # which has its own
    with pytest.raises(ConfigError, match="is no longer the file that the run in"):
        train(config, "run")
    path.unlink()
    words = [f"data.tokenizer={config.data.tokenizer}"]
    with pytest.raises(ConfigError, match="does not exist"):
        run_config("yaad", words, None)
    own = load_run("run").tokenizer.vocab_size
    assert run_config("yaad", words, None, folder / "run").model.vocab == own
    assert train(config, "run").resumed_from == 2
    path.write_bytes(whole)
    copy = folder / "run" / f"tokenizer{path.suffix}"
    copy.write_bytes(whole + b" ")
    told = refused("eval", "run")
    assert "is not the file that the run was started with (sha256" in told
    copy.unlink()
    assert "unreadable, No such file" in refused("generate", "run")


def test_a_run_without_a_copy_is_used_with_a_warning(project, caplog, capsys):
    folder, config = project
    (folder / "run" / "origin.json").unlink()
    (folder / "run" / f"tokenizer.{config.data.tokenizer.rpartition('.')[2]}").unlink()
    with caplog.at_level(logging.WARNING, "miras.train"):
        load_run("run")
    assert "was saved without a copy of its tokenizer" in caplog.text
    assert main(["eval", "run", "--batches", "1"]) == 0
    told = capsys.readouterr().err
    assert told.count("without a copy") == 1
    assert train(config, "run").resumed_from == 2  # which checks that it is the same, and keeps it
    assert (folder / "run" / "origin.json").exists()
    caplog.clear()
    load_run("run")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "record", ["", "[]", "{", '{"sha256": 3}', "[" * 10_000, '{"sha256": {"tokenizer.json": 3}}']
)
def test_a_damaged_record_is_told_of(project, record, refused):
    (project[0] / "run" / "origin.json").write_text(record)
    told = refused("eval", "run")
    assert "origin.json cannot be read" in told or "is not the file" in told


def test_paths_that_could_not_exist(tiny, tmp_path):
    for name in ("none.json", "~nobody-here/a.model", "a" * 5000 + ".json", "a\0.model"):
        with pytest.raises(ConfigError) as told:
            train(override(tiny(), f"data.tokenizer={name}"), tmp_path / "run")
        assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()
