"""The command `miras plan`."""

import json

import pytest

from miras.cli.main import main

WORDS = ("yaad", "layers=2", "width=64", "heads=4", "vocab=512", "chunk=16", "sequence=64")


def test_json_has_what_the_tables_say(capsys):
    argv = [*WORDS, "tokens_per_step=1k", "--on", "v5e-4", "--tokens", "1M", "--price", "v5e=2"]
    assert main(["plan", "--no-compile", *argv, "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert plan["batch"] == 16
    assert plan["memory"]["peak"] == sum(v for k, v in plan["memory"].items() if k != "peak")
    training = plan["training"]
    assert training["hours"] == pytest.approx(1e6 / plan["tokens_per_second"] / 3600)
    assert training["price"] == pytest.approx(training["hours"] * 4 * 2)
    assert plan["assumptions"]


def test_the_tables(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    argv = [*WORDS, "data.batch=8", "--on", "v5e-4", "--on", "h100-8", "--on", "v5e-16"]
    assert main(["plan", "--no-compile", *argv, "--tokens", "1B"]) == 0
    told = capsys.readouterr().out
    assert "in all" in told
    assert "hours for 1B tokens" in told
    assert "h100-8 is analytic only" in told
    # Eight rows cannot be split over 16 chips, whose tensor axis is chosen for it.
    assert "fsdp=8 tensor=2" in told


def test_a_slice_that_does_not_fit_leaves_the_others(capsys):
    argv = [*WORDS, "data.batch=4", "mesh.fsdp=4", "--on", "v5e-4", "--on", "v5e-16", "--json"]
    assert main(["plan", "--no-compile", *argv]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["plans"]) == 1
    assert "v5e-16: mesh" in found["invalid"][0]


def test_search_lists_every_candidate(capsys):
    argv = [*WORDS, "data.batch=8", "--on", "v5e-4", "--search", "--json"]
    assert main(["plan", "--no-compile", *argv]) == 0
    rows = json.loads(capsys.readouterr().out)["candidates"]
    assert all(row["verdict"] for row in rows)
    steps = [row["plan"]["seconds"]["step"] for row in rows if row["verdict"] == "fits"]
    assert steps == sorted(steps)
    assert any(row["verdict"] != "fits" for row in rows)  # heads that 8 chips do not divide


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["tokens_per_step=many", "--on", "v5e-4"], "tokens_per_step=many"),
        (["tokens_per_step=1k", "data.batch=4", "--on", "v5e-4"], "both given"),
        (["--on", "v5e-5"], "v5e-4"),
        (["--on", "v5e-4", "--tokens", "x"], "--tokens=x"),
        (["--on", "v5e-4", "--price", "cheap"], "--price cheap"),
        (["tokens_per_step=64", "mesh.fsdp=4", "--on", "v5e-4"], "raise tokens_per_step"),
    ],
)
def test_errors(refused, argv, told):
    assert told in refused("plan", "--no-compile", *WORDS, *argv)
