"""A run folder and a session that an earlier version wrote still load and give the same numbers.

`run_3e02ed6.zip` was written by the code of commit 3e02ed6 on CPU, never by later code: a run of
three layers (memory, window, attention to all) that was stopped after step 2 of 3, and a session
of it. `expected.json` holds the command's words, how that code went on from the session, and the
held-out loss after step 3.
"""

import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.flax import save

import miras
from miras.cli.main import main
from miras.config import config_hash
from miras.models import LanguageModel, Sampling, load_session, session, steps
from miras.models.session import Session, save_session
from miras.train import load_run
from miras.train.runs.run_folder import RunFolder

_RUN = pathlib.Path(__file__).with_name("run_3e02ed6.zip")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The folder, and what the earlier code found."""
    shutil.unpack_archive(_RUN, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "run", json.loads((tmp_path / "run" / "expected.json").read_text())


def test_a_config_keeps_its_hash(saved):
    """Fields that were added since, at their defaults, make it no other config."""
    folder, _ = saved
    config = RunFolder(folder).read_config()
    assert config_hash(config) == (folder / "config_hash").read_text().strip()


def test_a_session_goes_on_as_it_did(saved):
    folder, expected = saved
    run = load_run(folder)
    assert run.step == 2
    kept = load_session(folder / "session", run.model)
    found = list(steps(run.model, kept.logits, kept.state, 8, Sampling(temperature=0)))
    assert [int(step.token[0]) for step in found] == expected["continuation"]
    last = np.asarray(found[-1].logits[0, :16])
    np.testing.assert_allclose(last, expected["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_evaluates_generates_and_resumes(saved, capsys):
    folder, expected = saved
    assert main(["eval", str(folder), "--batches", "1"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    assert main(["generate", str(folder), "--prompt", "the", "--length", "2"]) == 0
    assert capsys.readouterr().out.startswith("the")
    assert main(["train", *expected["words"], "--out", str(folder)]) == 0
    assert "resuming from step 2" in " ".join(capsys.readouterr().out.split())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (held_out,) = (line for line in lines if line["kind"] == "held_out")
    assert held_out["step"] == 3
    assert held_out["loss"] == pytest.approx(expected["held_out_loss"], abs=1e-4)


def test_a_window_held_its_threshold_beside_its_keys(tmp_path):
    """Sessions of before name the gate of a window's tokens "window.threshold"."""
    config = miras.override(
        miras.preset("yaad"), "algorithm=omega", "algorithm.window=2", "width=8", "layers=1",
        "heads=1", "vocab=5",
    )  # fmt: skip
    model = LanguageModel(config, nnx.Rngs(0))
    path = tmp_path / "session"
    save_session(path, model, Session(model.init_state(1), jnp.zeros((1, 5)), 0))
    with safe_open(path, framework="flax") as file:
        header = json.loads((file.metadata() or {})["miras"])
        now = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    before = {name.replace("window.gates.", "window."): leaf for name, leaf in now.items()}
    assert any(name.endswith("window.threshold") for name in before)
    del header["digest"]
    header["digest"] = session._digest(header, before)
    path.write_bytes(save(before, {"miras": json.dumps(header)}))
    assert load_session(path, model).tokens == 0
