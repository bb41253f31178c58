"""Commands on a run that four devices trained, there and on one device."""

import json
import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from miras.cli.main import main
from miras.train import load_run
from miras.train.evaluate import make_evaluator, sample
from miras.train.loggers.jsonl import read_metrics

WORDS = ("memory=matrix", "bias=dot", "retention=none", "algorithm=gd", "width=16", "heads=2")
WORDS += ("layers=1", "chunk=8", "data.sequence=32", "data.batch=4", "validation=0.3", "steps=2")
WORDS += (
    "eval_batches=100",
    "remat=none",
    "mesh.tensor=2",
    "mesh.max_replicated=1",
    "layer.conv=0",
)
TASKS = Path(__file__).parents[2] / "experiments" / "tasks"
COMMANDS = (
    ("eval", "RUN"),
    ("generate", "RUN", "--prompt", "ab", "--length", "6", "--temperature", "0"),
    ("eval", "RUN", "--lm-eval", "copa", "--include-path", str(TASKS), "--data", "ITEMS"),
)
SCRIPT = """
import contextlib, io, json, sys
from miras.cli.main import main

said = []
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(command) == 0, command
    said.append(out.getvalue())
print(json.dumps(said))
"""


def on_four_devices(python, *commands):
    """What commands print in a process of four devices."""
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    flags += " --xla_llvm_disable_expensive_passes=true"
    done = subprocess.run(
        [*python, "-c", SCRIPT, json.dumps(commands)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Twelve documents of 150 letters."""
    folder, random = tmp_path_factory.mktemp("given") / "text", np.random.default_rng(0)
    folder.mkdir()
    for n in range(12):
        letters = random.integers(97, 105, 150, np.uint8)
        (folder / f"{n}.txt").write_bytes(letters.tobytes())
    return folder


@pytest.fixture(scope="module")
def trained(text, python, tmp_path_factory):
    """The folder of the run, and what the commands print where it was trained."""
    out = tmp_path_factory.mktemp("runs") / "run"
    choices = [["ab", "fg"], ["cd", "e"], ["abc", "gh"]]
    items = [{"query": f"a{n}", "choices": two, "gold": n % 2} for n, two in enumerate(choices)]
    (out.parent / "copa.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    train = ["train", "yaad", *words(text), "--out", str(out)]
    return out, on_four_devices(python, train, *(placed(command, out) for command in COMMANDS))


def words(text):
    return [*WORDS, f"data.cache={text.parent / 'cache'}", "--data", str(text)]


def placed(command, out):
    places = {"RUN": str(out), "ITEMS": str(out.parent)}
    return [places.get(word, word) for word in command]


def test_commands_print_the_same_where_a_run_was_trained_and_on_one_device(trained, capsys):
    out, said = trained
    assert "devices: 4 x cpu, fsdp=2 x tensor=2" in said[0]
    for command, there in zip(COMMANDS, said[1:], strict=True):
        assert main(placed(command, out)) == 0
        assert capsys.readouterr().out == there


def test_held_out_sums_are_exact_where_the_last_batch_is_not_full(trained):
    """Of all held-out rows, as four devices added them up while training, and as one does."""
    out, _ = trained
    run = load_run(out)
    data = run.config.data
    batches = list(sample(data, run.config.model.align, run.config.train.eval_batches))
    rows = [int(np.any(batch["mask"], axis=1).sum()) for batch in batches]
    assert len(rows) > 1
    assert 0 < rows[-1] < data.batch
    (line,) = [x for x in read_metrics(out / "metrics.jsonl") if x["kind"] == "held_out"]
    graphdef, params = nnx.split(run.model, nnx.Param)
    want = make_evaluator(graphdef, data)(nnx.to_pure_dict(params), batches)
    assert line["tokens"] == want.tokens == sum(int(batch["mask"].sum()) for batch in batches)
    # 10 roundings of each token's loss, of about 5 nats.
    np.testing.assert_allclose(line["loss"], want.loss, rtol=10 * np.finfo(np.float32).eps)
    assert len(jax.devices()) == 1


@pytest.mark.exhaustive
def test_a_grid_trains_sharded_runs_that_can_be_inspected(text, python, tmp_path):
    out = tmp_path / "grid"
    ablate = ["ablate", "yaad", *words(text), "--seeds", "1", "--out", str(out)]
    (said,) = on_four_devices(python, ablate)
    assert "bits" in said
    (folder,) = (out / "runs").iterdir()
    assert load_run(folder).step == 2
    inspect = ["inspect", str(folder), "--text", "abc"]
    on_four_devices(python, inspect)
    page = (folder / "inspect.html").read_text("utf-8")
    assert main(inspect) == 0
    assert (folder / "inspect.html").read_text("utf-8") == page
