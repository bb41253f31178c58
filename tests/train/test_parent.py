"""A run that starts from the parameters of another one."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from miras.cli.main import main
from miras.errors import ConfigError
from miras.train import Parent, load_run, train
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.runs.initial_parameters import parse_source


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory):
    """A finished run of 4 steps."""
    out = tmp_path_factory.mktemp("runs") / "source"
    train(tiny(steps=4), out)
    return out


def params(out, step=None):
    return nnx.to_pure_dict(nnx.state(load_run(out, step).model, nnx.Param))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_and_its_step_are_told_apart(tmp_path):
    assert parse_source(f"{tmp_path}/a@12") == (f"{tmp_path}/a", 12)
    assert parse_source(f"{tmp_path}/a") == (f"{tmp_path}/a", None)
    assert parse_source(f"{tmp_path}/a@b") == (f"{tmp_path}/a@b", None)
    (tmp_path / "a@3").mkdir()
    assert parse_source(f"{tmp_path}/a@3") == (f"{tmp_path}/a@3", None)


def test_the_command_fine_tunes_a_run(source, tmp_path, capsys):
    out = tmp_path / "tuned"
    words = ["steps=2", "warmup=0", "learning_rate=1e-3"]
    argv = ["train", "--from", str(source), *words, "--out", str(out)]
    assert main(argv) == 0
    assert f"parameters of {source} at step 4." in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["parent"] == {"run": str(source), "step": 4, "partial": False}
    assert config["train"]["learning_rate"] == 1e-3
    assert_equal(params(out, 0), params(source))  # the newest
    assert load_run(out).step == 2  # steps start anew
    assert main(argv) == 0  # the same again
    assert main(["train", "--out", str(out)]) == 0  # the folder knows
    assert capsys.readouterr().out.count("is finished: 2 of 2 steps") == 2
    assert main(["train", "--out", str(out), "learning_rate=2e-3"]) == 2
    assert "train.learning_rate: 0.001 -> 0.002" in capsys.readouterr().err


def test_other_parameters_are_refused_with_a_table_unless_partial(source, tmp_path, tiny, console):
    config = tiny("bias=l2", "mlp_ratio=4", "tie=false", steps=1, warmup=0)
    out = tmp_path / "other"
    with pytest.raises(ConfigError, match=r"missing, .*of another shape.*--partial"):
        train(dataclasses.replace(config, parent=Parent(str(source), 4)), out, console=console)
    assert not out.exists()
    told = console.file.getvalue()
    assert "head.kernel" in told
    assert "mlp.up.kernel" in told
    partial = dataclasses.replace(config, parent=Parent(str(source), 2, partial=True))
    train(partial, out, console=console)
    assert "not taken: 1 missing, 3 of another shape" in console.file.getvalue()
    old, new = params(source, 2), params(out, 0)
    np.testing.assert_array_equal(old["embedding"], new["embedding"])
    np.testing.assert_array_equal(old["norm"]["scale"], new["norm"]["scale"])


@pytest.mark.slow
def test_a_second_stage_of_tnt_takes_smaller_local_chunks(tiny, tmp_path, capsys):
    """All parameters are those of the first stage; another number of memories is an error."""
    first, second = tmp_path / "first", tmp_path / "second"
    tnt = ["kind=tnt", "global_chunk=16", "local_chunks=[8]", "shard=16"]
    config = tiny(*(f"architecture.{field}" for field in tnt), steps=2, warmup=0)
    train(config, first)
    start = ["train", "--from", str(first), "steps=1", "warmup=0", "--out", str(second)]
    assert main([*start, "architecture.local_chunks=[4,2]"]) == 2
    told = capsys.readouterr().err
    assert f"the parameters of {first} are not those of the model" in told
    assert "missing" in told
    assert main([*start, "width=32", "architecture.local_chunks=[2]"]) == 2
    told = capsys.readouterr().err
    assert f"the parameters of {first} are not those of the model" in told
    assert "of another shape" in told
    assert main([*start, "chunk=4"]) == 2
    assert "set global_chunk or local_chunks" in capsys.readouterr().err
    assert main([*start, "architecture.local_chunks=[5]"]) == 2
    assert "tnt.shard=16 is no multiple of the local chunk 5" in capsys.readouterr().err
    assert not second.exists()
    assert main([*start, "architecture.local_chunks=[2]"]) == 0
    run = load_run(second)
    assert run.config.model.architecture.local_chunks == (2,)
    assert run.config.model.architecture.global_chunk == 16
    assert_equal(params(second, 0), params(first))
    assert "not taken" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--from", "{source}@3"], "no checkpoint of step 3: the steps are 0, 2, 4"),
        (["--from", "{tmp}/nothing"], "is not the folder of a run"),
        (["yaad", "--from", "{tmp}/nothing"], "has no checkpoint"),
        (["yaad", "--from", "a" * 5000], "has no checkpoint"),
        (["--from", "{source}@last"], "@last: the step is not a whole number"),
        (["--from", ""], "--from is empty"),
        (["--from", "~nobody-has-this-name/run@3"], "give a path"),
        (["tokenizer=~nobody-has-this-name/t.json"], "give a path"),
        (["--partial"], "--partial needs --from RUN"),
    ],
)
def test_what_cannot_be_a_start_is_told(source, tmp_path, capsys, argv, message):
    words = [word.format(source=source, tmp=tmp_path) for word in argv]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert saved_steps(tmp_path / "run" / "checkpoints") == []
