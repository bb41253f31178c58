"""Runs of `task=classify`: commands, resuming, fine-tuning from a language model, and meshes."""

import json
import pathlib
import subprocess

import jax
import numpy as np
import pytest
from flax import nnx

from miras.cli.main import main
from miras.config import override
from miras.train import evaluate_run, load_run, train
from tests.devices import environment


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of 60 sequences, of which half have a motif; and a genome with the motif."""
    folder, random = tmp_path_factory.mktemp("sequences"), np.random.default_rng(0)
    rows = []
    for n in range(60):
        place = random.integers(0, 8)
        letters = "".join(random.choice(list("ACGT"), 15))
        motif = "GATTACA" if n % 2 else ""
        rows.append(
            f"{letters[:place]}{motif}{letters[place + len(motif) :]},{['no', 'yes'][n % 2]}"
        )
    (folder / "table.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    genome = "GATTACATTGACCGGAT" * 200
    (folder / "genome.fa").write_text(f">chr\n{genome}\n")
    return folder


@pytest.fixture
def config(tiny, table):
    """The config of a run on the table, with both strands."""
    return tiny(
        "task=classify",
        f"data.source={table / 'table.csv'}",
        "data.tokenizer=nucleotide",
        'task.classes=["no","yes"]',
        "task.augment_strand=true",
        "task.pool_strands=true",
        "task.hide=0.05",
        "sequence=16",
        "vocab=6",
    )


def params(out, step=None):
    return nnx.to_pure_dict(nnx.state(load_run(out, step).model, nnx.Param))


def test_a_run_resumes_bit_for_bit(config, tmp_path):
    whole = train(config, tmp_path / "whole")
    train(override(config, "steps=8", "checkpoint_every=3"), tmp_path / "parts")
    assert whole.held_out == evaluate_run(load_run(tmp_path / "whole"))
    assert whole.held_out.rows == 12  # of both classes the share data.validation
    (tmp_path / "parts" / "checkpoints" / "8").rename(tmp_path / "gone")
    again = train(override(config, "steps=8", "checkpoint_every=3"), tmp_path / "parts")
    assert again.resumed_from == 6
    jax.tree.map(
        np.testing.assert_array_equal, params(tmp_path / "whole"), params(tmp_path / "parts")
    )


def test_commands_train_evaluate_and_fine_tune(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = "width=8 layers=1 heads=1 chunk=8 remat=none steps=2 warmup=0 batch=4 eval_batches=1"
    reads = f"data.cache={tmp_path / 'cache'} data.tokenizer=nucleotide sequence=16 {small}"
    model = ["train", "deltanet", *reads.split()]
    genome, source = f"data.source={table / 'genome.fa'}", f"data.source={table / 'table.csv'}"
    assert main([*model, genome, "--out", "lm"]) == 0
    labelled = ["task=classify", source, "task.folds=5", "task.fold=1"]
    capsys.readouterr()
    assert main(["train", "--from", "lm", *labelled, "--out", "tuned"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "withnewclass_bias,class_head.kernel." in said
    tuned = json.loads(pathlib.Path("tuned/config.json").read_text())
    assert tuned["data"]["task"]["classes"] == ["no", "yes"]
    before, after = params("lm"), params("tuned", 0)
    for part in ("embedding", "groups", "norm"):
        jax.tree.map(np.testing.assert_array_equal, before[part], after[part])
    assert main(["eval", "tuned"]) == 0
    assert "Matthews correlation" in capsys.readouterr().out
    assert main(["train", "--from", "tuned", "steps=3", "--out", "again"]) == 0
    # a model of another width, and words, whose embedding the language model does not have
    for other in ("width=16", "task.words=3"):
        given = [*model, *labelled, other, "--from", "lm", "--out", "other"]
        assert main(given) == 2
        assert "of another shape" in capsys.readouterr().err
    assert main(["train", "--from", "tuned", "task=none", genome, "--out", "back"]) == 0
    others = (["generate"], ["stream", str(table / "table.csv")], ["inspect", "--text", "ACGT"],
              ["eval", "--task", "niah"])  # fmt: skip
    for command, *rest in others:
        assert main([command, "tuned", *rest]) == 2
        assert "predicts no tokens" in capsys.readouterr().err


ON_DEVICES = """
import sys
from miras.config import from_json
from miras.train import RunConfig, train
print(float(train(from_json(RunConfig, sys.argv[1]), sys.argv[2]).held_out.loss))
"""


@pytest.mark.slow
def test_devices_share_its_rows_and_tokens(config, python, tmp_path):
    from miras.config import to_json

    config = override(config, "steps=4", "data.batch=4")
    want = train(config, tmp_path / "one").held_out._asdict()["loss"]
    meshed = override(config, "mesh.fsdp=2", "mesh.seq=2", "mesh.max_replicated=1")
    done = subprocess.run(
        [*python, "-c", ON_DEVICES, to_json(meshed), str(tmp_path / "four")],
        env=environment(4),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(want, rel=1e-5)
