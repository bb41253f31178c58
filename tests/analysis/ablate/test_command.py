"""`miras ablate`: what words mean, what it prints, and one sentence for what cannot be."""

import pytest

from miras.cli.ablate import parse_points, split_values
from miras.cli.main import main

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = (
    "rule.memory=matrix", "retention=none", "width=16", "layers=1", "heads=2", "remat=false",
    "sequence=32", "batch=2", "validation=0.3", "steps=2",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("l2", ["l2"]),
        ("l2,lp, huber", ["l2", "lp", "huber"]),
        ('{"kind":"lp","p":3},l2', ['{"kind":"lp","p":3}', "l2"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ('"a,b.model",byte', ["a,b.model", "byte"]),
        (r'"a\",b",c', ['a",b', "c"]),
        ("l2,", ["l2", ""]),
    ],
)
def test_commas_outside_brackets_and_quotes_separate(text, values):
    assert split_values(text) == values


def test_optim_is_short_for_algorithm():
    assert parse_points(["optim=gd,momentum", "optim.lr=0.1"]) == (
        {"algorithm": "gd", "algorithm.lr": "0.1"},
        {"algorithm": "momentum", "algorithm.lr": "0.1"},
    )


@pytest.mark.multiprocess
def test_a_grid_from_the_command_line(fake, sea, tmp_path, capsys, monkeypatch):
    argv = ["ablate", "yaad", "bias=dot,l2", "--data", str(sea), *SMALL, "chunk=8,24"]
    argv += ["--seeds", "2", "--out", str(tmp_path / "out"), "--jobs", "2"]
    monkeypatch.setenv("FAKE_TROUBLE", "dot-8-seed1:killed")
    assert main(argv) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "1 of 4 runs did not finish" in told.err
    assert "to retry the failed ones" in told.err
    assert "skipped bias=dot, chunk=24; bias=l2, chunk=24: data.sequence=32" in told.out

    monkeypatch.delenv("FAKE_TROUBLE")
    assert main(argv) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "4/4  bias=dot, chunk=8, seed 1" in told.out
    assert (tmp_path / "out" / "table.md").read_text().startswith("# Ablation of yaad")

    assert main([*argv, "eval_batches=3"]) == 2
    assert "eval_batches: (absent) -> 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["PRESET", "--help"]),
        (["yad", "bias=l2,lp"], ["unknown preset 'yad'", "did you mean 'yaad'"]),
        (["bias=l2,lp"], ["unknown preset 'bias=l2,lp'"]),
        (["yaad", "biass=l2,lp"], ["unknown key 'biass'", "did you mean 'bias'"]),
        (["yaad", "bias=l2,l3"], ["unknown bias 'l3'"]),
        (["yaad", "bias="], ["'bias' has an empty value"]),
        (["yaad", "bias=l2,"], ["'bias' has an empty value"]),
        (["yaad", "bias=l2,lp,l2"], ["bias=l2 is given twice"]),
        (["yaad", "optim=gd", "algorithm=momentum"], ["'algorithm' is given twice"]),
        (["yaad", "bias"], ["'bias'", "key=value"]),
        (["yaad", 'bias={"kind":"lp"'], ["not closed"]),
        (["yaad", "bias=lp}"], ["not opened"]),
        (["yaad", "bias=l2,lp", "--seeds", "0"], ["--seeds 0"]),
        (["yaad", "bias=l2,lp", "--seeds", "many"], ["--seeds", "'many'"]),
        (["yaad", "bias=l2,lp", "--jobs", "0"], ["--jobs 0"]),
        (["yaad", "seed=1,2"], ["ambiguous", "train.seed"]),
        (["yaad", "data.seed=1,2"], ["--seeds"]),
        (["yaad", "memory=mlp", "optim=newton,nonparametric"], ["none of the 2 cells is legal"]),
        (["yaad", "bias=l2,lp", "--data", "/no/such/text"], ["/no/such/text", "does not exist"]),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", *argv]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert told.err.startswith("miras: ")
    for word in words:
        assert word in told.err
    assert list(tmp_path.iterdir()) == []


def test_options_that_cannot_be(capsys):
    assert main(["ablate", "yaad", "bias=l2", "--sweep", "width=1,2"]) == 2
    assert "is not the sweep of a rate: give algorithm.lr=0.5x,1x,2x" in capsys.readouterr().err
    assert main(["ablate", "yaad", "bias=l2", "--budget", "time"]) == 2
    assert "flops" in capsys.readouterr().err


@pytest.mark.multiprocess
def test_a_sweep_from_the_command_line(fake, sea, tmp_path, capsys):
    argv = ["ablate", "yaad", "bias=dot,l2", "--data", str(sea), *SMALL, "--seeds", "2"]
    argv += ["--out", str(tmp_path / "out"), "--sweep", "algorithm.lr=0.5x,1x"]
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert "8/8" in told
    assert "best algorithm.lr" in told
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"rates.csv", "rates.png"} <= written
    assert main([*argv[:-1], "algorithm.lr=0.5x,2x"]) == 2
    assert "--sweep algorithm.lr: 0.5x,1x -> 0.5x,2x" in capsys.readouterr().err
