"""SIGKILL at any moment, also within a save, changes nothing in how a run ends."""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx

from miras.config import to_json
from miras.train import load_run, train
from miras.train.loggers.jsonl import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

RUN = """
import sys
from miras.config import from_json
from miras.train import RunConfig, train
train(from_json(RunConfig, open(sys.argv[1]).read()), sys.argv[2])
"""


def last_step(out):
    lines = read_metrics(out / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def is_saving(out):
    folder = out / "checkpoints"
    return folder.is_dir() and any("tmp" in p.name for p in folder.iterdir())


def test_a_killed_run_ends_with_the_same_bits(tiny, tmp_path):
    """Killed twice: once at a random step, once while a checkpoint is half written."""
    config = tiny(steps=24, checkpoint_every=1, eval_every=8, health_every=8, log_every=1)
    (tmp_path / "config.json").write_text(to_json(config))
    out = tmp_path / "killed"
    command = [sys.executable, "-c", RUN, str(tmp_path / "config.json"), str(out)]
    at = random.Random(0).randrange(3, 9)
    moments = [lambda: last_step(out) >= at, lambda: last_step(out) >= at + 5 and is_saving(out)]
    for moment in moments:
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ.copy())
            try:
                while not moment():
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.002)
            finally:
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert last_step(out) < 24
    subprocess.run(command, check=True, capture_output=True)

    undisturbed = train(config, tmp_path / "undisturbed")
    run = load_run(out)
    assert run.step == 24
    params = nnx.to_pure_dict(nnx.state(run.model, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, params, undisturbed.state.params)
    kinds = [
        [(x["step"], x["kind"]) for x in read_metrics(o / "metrics.jsonl") if x["kind"] != "start"]
        for o in (out, tmp_path / "undisturbed")
    ]
    assert kinds[0] == kinds[1]
