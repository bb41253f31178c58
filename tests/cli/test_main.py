"""The command line: what it prints, and one sentence and exit code 2 for what cannot be."""

import json
import os

import pytest

from miras.cli.main import main
from miras.train.checkpoints.checkpointer import Checkpoints, saved_steps
from miras.train.runs.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = (
    "rule.memory=matrix", "bias=dot", "retention=none", "width=16", "layers=1", "heads=2",
    "chunk=8", "remat=false", "sequence=32", "batch=2", "validation=0.2", "steps=4",
    "eval_batches=2", "log_every=2", "checkpoint_every=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(sea, tmp_path_factory):
    """A finished run's folder."""
    out = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", "yaad", "--data", str(sea), *SMALL, "--out", str(out)]) == 0
    return out


def test_a_run_is_trained_measured_and_continued(run, sea, capsys):
    assert json.loads((run / "config.json").read_text())["data"]["source"] == str(sea)
    argv = ["train", "yaad", *SMALL, "--data", str(sea), "--out", str(run), "--resume"]
    assert main(argv) == 0
    assert "is finished: 4 of 4 steps" in capsys.readouterr().out

    assert main(["eval", str(run)]) == 0
    told = capsys.readouterr().out
    assert "bits per byte" in told
    assert "perplexity" in told

    texts = []
    for seed in (1, 1, 2):
        argv = ["generate", str(run), "--prompt", "see the", "--length", "12", "--seed", str(seed)]
        assert main(argv) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0].startswith("see the")
    assert len(texts[0]) > len("see the\n")
    assert texts[0] == texts[1] != texts[2]


def test_words_may_stand_on_either_side_of_options(sea, tmp_path, refused):
    """All are read: the last one is what is refused."""
    told = refused("train", "--data", sea, "yaad", "steps=4", "--out", tmp_path / "r", "batch=0")
    assert "batch=0" in told


def test_the_vocabulary_follows_the_tokenizer(sea, tmp_path, refused):
    told = refused("train", "--data", sea, "vocab=100", *SMALL, "--out", tmp_path / "run")
    assert "model.vocab=100 is too small" in told
    assert "model.vocab=257" in told


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "yad"], ["unknown preset 'yad'", "linear_attention", "did you mean 'yaad'"]),
        (["describe", "yad"], ["unknown preset 'yad'"]),
        (["train", "bias=l3"], ["unknown bias 'l3'", "huber"]),
        (["describe", "yaad", "bias=l3"], ["unknown bias 'l3'"]),
        (["train", "stepps=3"], ["unknown key 'stepps'", "did you mean 'steps'"]),
        (["describe", "yaad", "widht=3"], ["unknown key 'widht'", "did you mean 'width'"]),
        (["train", "steps=many"], ["steps='many'", "whole number"]),
        (["train", "steps=0"], ["steps=0", "at least 1"]),
        (["train", "width=30"], ["width=30", "heads=4"]),
        (["train", "seed=1"], ["ambiguous", "data.seed", "train.seed"]),
        (["train", "yaad", "titans_lmm"], ["'titans_lmm'", "key=value"]),
        (["train", "sequence=40"], ["sequence=40", "multiple"]),
        (["train", "steps=5", "warmup=5"], ["warmup=5", "steps=5"]),
        (["train", "--data", "/no/such/text"], ["/no/such/text", "does not exist"]),
        (["train", "--data", "tfds:no_such_set"], ["no_such_set"]),
        (["train", "tokenizer=/no/such.model"], ["/no/such.model"]),
        (["train", "--out", ""], ["--out is empty"]),
        (["describe", "yaad", 'memory={"kind":"mlp"'], ["is not valid JSON"]),
        (["train", "--colour"], ["--colour", "--help"]),
        (["eval"], ["RUN", "--help"]),
        (["eval", "/no/such/run"], ["/no/such/run", "config.json"]),
        (["generate", "/no/such/run", "--length", "long"], ["--length", "'long'"]),
        (["trian"], ["'trian'", "train"]),
        ([], ["COMMAND"]),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(argv, words, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = refused(*argv)
    for word in words:
        assert word in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "short"])
def test_text_that_is_empty_or_too_short(content, refused, tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.txt").write_text(content and f"{content} {n}")
    told = refused("train", "--data", tmp_path, "--out", tmp_path / "run")
    assert "empty" in told or "too few" in told
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_config_shows_the_difference(run, sea, refused):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    told = refused("train", "yaad", *SMALL, "steps=5", "--data", sea, "--out", run)
    assert "train.steps: 4 -> 5" in told
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_folder_in_use_is_refused(run, sea, refused):
    with RunFolder(run).locked():
        told = refused("train", "yaad", *SMALL, "--data", sea, "--out", run)
    assert f"process {os.getpid()}" in told


def test_sampling_options_out_of_range(run, refused):
    for option, value in (("--temperature", -1), ("--top-k", 0), ("--top-p", 2), ("--length", -1)):
        told = refused("generate", run, option, value)
        assert str(value) in told


def test_a_disk_that_cannot_be_written(sea, refused, tmp_path):
    (tmp_path / "file").write_text("")
    told = refused("train", "yaad", *SMALL, "--data", sea, "--out", tmp_path / "file" / "run")
    assert "cannot write" in told


def test_nan_ends_with_code_1_and_an_interrupt_with_130(sea, tmp_path, capsys, monkeypatch):
    argv = ["train", "yaad", *SMALL, "--data", str(sea), "--out"]
    assert main([*argv, str(tmp_path / "nan"), "learning_rate=1e30"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "step 1 is not finite" in told
    assert saved_steps(tmp_path / "nan" / "checkpoints") == [0]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", interrupt)
    assert main([*argv, str(tmp_path / "stopped")]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_presets_and_descriptions_are_told(capsys):
    assert main(["presets"]) == 0
    told = capsys.readouterr().out
    for word in ("linear_attention", "2006.16236", "titans_lmm", "2501.00663", "exact, in"):
        assert word in told  # whole, on 80 columns
    assert main(["describe", "titans_lmm", "width=64", "model.layers=2"]) == 0
    told = capsys.readouterr().out
    for word in ("momentum(", "equation", "2501.00663", "parameters", "per sequence", "per token"):
        assert word in told


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["--help"], ["train", "describe"]), (["train", "--help"], ["tfds:NAME", "runs/PRESET"])],
)
def test_help_explains(argv, words, capsys):
    assert main(argv) == 0
    told = capsys.readouterr().out
    for word in words:
        assert word in told
