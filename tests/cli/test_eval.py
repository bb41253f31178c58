"""`miras train ... task=...` and `miras eval RUN --task ...`, from words to files."""

import json
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from miras.cli.main import main
from miras.train import load_run
from miras.train.loggers.jsonl import read_metrics

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = (
    "rule.memory=matrix", "bias=dot", "retention=none", "width=16", "layers=1", "heads=2",
    "chunk=8", "remat=false", "batch=4", "steps=4", "eval_every=2", "eval_batches=2", "log_every=2",
    "checkpoint_every=2", "task.examples=8", "validation=0.5",
)  # fmt: skip


def trained(tmp_path_factory, *words):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "yaad", *words, *SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def recall(tmp_path_factory):
    """A run on mqar."""
    words = ("task=mqar", "task.vocab=24", "task.pairs=[1,3]", "sequence=32")
    return trained(tmp_path_factory, *words)


@pytest.fixture(scope="module")
def needle(tmp_path_factory, text):
    """A run on text with needles."""
    return trained(tmp_path_factory, "task=niah", f"source={text}", "sequence=408")


def test_a_run_on_a_task_takes_its_vocabulary_and_tells_of_answers(recall, capsys):
    config = load_run(recall).config
    assert (config.model.vocab, config.data.task.vocab) == (24, 24)
    lines = [x for x in read_metrics(recall / "metrics.jsonl") if x["kind"] == "held_out"]
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[-1]["rows"] == 4
    for name in ("accuracy", "exact_match"):
        assert 0 <= lines[-1][name] <= 1
    assert lines[-1]["bits_per_byte"] == pytest.approx(lines[-1]["loss"] / np.log(2))

    assert main(["eval", str(recall)]) == 0
    told = capsys.readouterr().out
    assert "exact match" in told
    assert "bits" not in told
    words = ["task=mqar", "task.vocab=24", "task.pairs=[1,3]", "sequence=32", *SMALL]
    assert main(["train", "yaad", *words, "--out", str(recall)]) == 0
    told = capsys.readouterr().out
    assert "is finished: 4 of 4 steps" in told
    assert "exact match" in told


def test_the_same_run_again_ends_alike(recall, tmp_path, capsys):
    words = ["task=mqar", "task.vocab=24", "task.pairs=[1,3]", "sequence=32", *SMALL]
    assert main(["train", "yaad", *words, "steps=4", "--out", str(tmp_path / "run")]) == 0
    assert "bits/byte" not in capsys.readouterr().out
    one, other = (
        [x | {"time": 0} for x in read_metrics(out / "metrics.jsonl") if x["kind"] == "held_out"]
        for out in (recall, tmp_path / "run")
    )
    assert one == other


def test_a_task_is_told_as_a_table_a_picture_and_numbers(recall, capsys):
    argv = ["eval", str(recall), "--task", "mqar", "--lengths", "64, 1K", "--depths", "0,1"]
    assert main([*argv, "--examples", "5", "pairs=2", "task.noise=false"]) == 0
    told = capsys.readouterr().out
    assert "mqar: exact match by length and depth" in told
    assert all(word in told for word in ("64", "1k", "length · depth", "mean", "5 rows per cell"))
    found = json.loads((recall / "eval" / "mqar.json").read_text())
    assert found["task"]["pairs"] == 2
    assert found["task"]["noise"] is False
    assert found["task"]["vocab"] == 24  # the run's
    assert (found["step"], found["seed"]) == (4, 0)
    places = [(cell["length"], cell["depth"]) for cell in found["cells"]]
    assert places == [(64, 0), (64, 1), (1024, 0), (1024, 1)]
    assert {cell["targets"] for cell in found["cells"]} == {10}
    assert all(x["low"] <= x["exact_match"] <= x["high"] for x in [*found["cells"], found["all"]])
    assert matplotlib.image.imread(recall / "eval" / "mqar.png").ndim == 3

    assert main([*argv, "--examples", "5", "pairs=2", "task.noise=false"]) == 0
    assert json.loads((recall / "eval" / "mqar.json").read_text()) == found


@pytest.mark.slow
def test_any_task_in_text_goes_with_a_run_on_text(needle, babi, text, tmp_path, capsys):
    argv = ["eval", str(needle), "--lengths", "450", "--depths", "0.5", "--examples", "2"]
    out = ["--out", str(tmp_path / "out")]
    assert main([*argv, "--task", "niah", "form=uuid", *out]) == 0
    assert "niah (uuid)" in capsys.readouterr().out
    assert main([*argv, "--task", "variable_tracking", "hops=1", *out]) == 0
    assert "variable_tracking: recall by length and depth" in capsys.readouterr().out
    assert main([*argv, "--task", "babilong", f"babi={babi}", "--data", str(text), *out]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "niah.json", "niah.png", "babilong.json", "babilong.png", "variable_tracking.json",
        "variable_tracking.png",
    }  # fmt: skip
    found = json.loads((tmp_path / "out" / "variable_tracking.json").read_text())
    assert 0 <= found["all"]["recall_low"] <= found["all"]["recall"] <= found["all"]["recall_high"]
    assert main(["eval", str(needle), "--data", str(text), "--batches", "1"]) == 0
    assert "bits per byte" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--task", "mqarr"], "unknown task 'mqarr'"),
        (["--task", "niah"], "is text, but the run was trained on the 24 symbols"),
        (["--task", "mqar", "vocab=64"], "has its own 64 symbols, but the run .* 24 other symbols"),
        (["--task", "mqar", "paris=4"], "did you mean 'pairs'"),
        (["--task", "mqar", "four"], "'four' is not of the form key=value"),
        (["--task", "mqar", "--lengths", "12x"], "'12x' is not a whole number of tokens"),
        (["--task", "mqar", "--lengths", "64,"], "'' is not a whole number of tokens"),
        (["--task", "mqar", "--lengths", "0k"], "'0k' is not a whole number of tokens"),
        (["--task", "mqar", "--lengths", "9" * 20], "is not a whole number of tokens"),
        (["--task", "mqar", "--lengths", "9" * 5000], "is not a whole number of tokens"),
        (["--task", "mqar", "--lengths", "64,8"], "length=8 is too short for 3 pairs"),
        (["--task", "mqar", "--depths", "1.5"], r"--depths=1.5 must lie in \[0, 1\]"),
        (["--task", "mqar", "--depths", "nan"], r"--depths=nan must lie in \[0, 1\]"),
        (["--task", "mqar", "--depths", "deep"], "--depths 'deep' is not a number"),
        (["--task", "mqar", "--examples", "0"], "examples=0 must be at least 1"),
        (["--task", "mqar", "--seed", "-1"], r"seed=-1 must lie in \[0"),
        (["--task", "mqar", "--batches", "2"], "--batches does not apply to a task"),
        (["--task", "mqar", "--data", "stdlib"], "--data does not apply to task 'mqar'"),
        (["--lengths", "64"], "--lengths applies to a task only"),
        (["pairs=3"], "'pairs=3' applies to a task only"),
        (["--data", "stdlib"], "tokens are not text: --data needs a run"),
        (["--task", "mqar", "--out", "{run}/config.json", "--lengths", "32"], "cannot write"),
        (["--limit", "4"], "--limit applies to tasks of lm-eval only"),
        (["--task", "mqar", "--include-path", "x"], "--include-path applies to tasks of lm-eval"),
        (["--lm-eval", "piqa", "--task", "mqar"], "--task does not apply to --lm-eval"),
        (["--lm-eval", "piqa", "form=uuid"], "'form=uuid' does not apply to --lm-eval"),
        (["--lm-eval", "piqa"], "lm-eval needs a run that was trained on text"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(recall, refused, words, told):
    assert re.search(told, refused("eval", recall, *(w.format(run=recall) for w in words)))


@pytest.mark.slow
def test_tasks_of_lm_eval_are_told_as_a_table_and_numbers(needle, tmp_path, capsys):
    include = Path(__file__).parents[2] / "experiments" / "tasks"
    item = {"query": "a tree?", "choices": ["sea", "sky"], "gold": 1}
    (tmp_path / "piqa.jsonl").write_text(f"{json.dumps(item)}\n" * 2)
    argv = ["eval", str(needle), "--lm-eval", "piqa, piqa", "--include-path", str(include)]
    assert main([*argv, "--data", str(tmp_path), "--limit", "1"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("piqa", "acc_norm", "standard error", "written: "))
    found = json.loads((needle / "eval" / "lm_eval.json").read_text())
    assert [(score["metric"], score["items"]) for score in found["scores"]] == [
        ("acc", 1), ("acc_norm", 1),
    ]  # fmt: skip


def test_what_needs_text_or_symbols_says_so(recall, needle, refused):
    assert "generating needs a run that was trained on text" in refused("generate", recall)
    assert "staleness needs a run" in refused("staleness", recall)
    told = refused("eval", needle, "--task", "mqar")
    assert "its own 8192 symbols, but the run was trained on text" in told
    told = refused("train", "yaad", "task=mqar", "task.vocab=64", "vocab=32", "sequence=32")
    assert "model.vocab=32 is too small for data.task.vocab=64" in told
