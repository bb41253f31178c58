"""A task with a model, rows, a loss and metrics of its own, in the one training loop."""

import dataclasses
import json
import subprocess
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras.analysis.ablate.cell_costs import cell_costs
from miras.cli.main import main
from miras.config import override
from miras.data import TaskConfig
from miras.errors import ConfigError
from miras.layers.param import LinearGeneral
from miras.models.backbone import Backbone
from miras.models.objective import PLAIN_LOSS, Head, Objective, Score, Totals
from miras.parallel.batches import RowField
from miras.tasks import register
from miras.train import evaluate_run, load_run, train
from miras.train.loggers.jsonl import read_metrics
from tests.devices import environment

STEPS, INPUTS = 6, 3


class MeanError(NamedTuple):
    """The result of an evaluation."""

    loss: float
    rows: int

    @property
    def summary(self):
        return f"error {self.loss:.3f}"

    @property
    def table(self):
        return [("rows", str(self.rows)), ("error", f"{self.loss:.4f}")]


class Regressor(Backbone):
    """The mean of the features of a row, mapped to a number."""

    def __init__(self, config, rngs):
        super().__init__(config, rngs)
        self.embed = LinearGeneral((INPUTS, config.width), (None, "embed"), rngs)
        self.head = LinearGeneral((config.width, 1), ("embed", None), rngs)

    def run(self, values, health=False):
        x, _, found = self.apply_blocks(self.embed(values), health=health)
        return self.head(jnp.mean(x, axis=1))[:, 0], found


class Regression(Objective):
    """Squared error."""

    score = Score("loss", "squared error", less_is_better=True)
    rows = "numbers"

    def build(self, config, rngs):
        return Regressor(config, rngs)

    def head(self, config, tokens):
        return Head(config.width, 1, by_token=False, others=2 * tokens * INPUTS * config.width)

    def sums(self, model: Any, batch):
        error = jnp.square(model.run(batch["values"])[0] - batch["answer"])
        return Totals(jnp.sum(error, where=batch["mask"]), jnp.sum(batch["mask"]), 0.0)

    def loss(self, model: Any, batch, options=PLAIN_LOSS):
        totals = self.sums(model, batch)
        return totals.nats, totals

    def result(self, sums):
        return MeanError(sums.nats / sums.targets, int(sums.targets))

    def observe(self, model: Any, batch):
        return model.run(batch["values"], health=True)[1]

    def tokens(self, batches):
        return STEPS * jnp.sum(batches["mask"])


class Numbers:
    """Rows of random numbers, whose answer is a mean."""

    def __init__(self, count, seed):
        self.count, self.seed, self.row = count, seed, 0

    def fill(self, batch, place):
        if self.count is not None and self.row >= self.count:
            return False
        if place is not None:
            values = np.random.default_rng((self.seed, self.row)).normal(size=(STEPS, INPUTS))
            batch["values"][place], batch["answer"][place] = values, values[:, 0].mean()
            batch["mask"][place] = True
        self.row += 1
        return True

    def get_state(self):
        return {"row": self.row}

    def set_state(self, state):
        self.row = state["row"]


@register("regress_numbers")
@dataclasses.dataclass(frozen=True)
class RegressNumbers(TaskConfig):
    """See `Numbers`."""

    reports = "test"

    held_out: int = 5

    def vocabulary(self):
        return 1

    def row_tokens(self):
        return STEPS

    def objective(self, data):
        return Regression()

    def layout(self, data):
        return {
            "values": RowField((STEPS, INPUTS), np.float32),
            "answer": RowField((), np.float32),
            "mask": RowField((), np.bool_),
        }

    def rows(self, data, split, *, epochs, shuffle):
        seed = ("train", "validation", "test").index(split)
        return Numbers(None if split == "train" else self.held_out + seed, seed), {"split": split}


@pytest.fixture
def config(tiny):
    return tiny("task=regress_numbers", "data.batch=2", "model.vocab=1", "chunk=4")


def test_a_run_resumes_and_reports_what_its_task_does(config, tmp_path):
    half = train(override(config, "steps=4"), tmp_path / "half")
    whole = train(config, tmp_path / "run")
    assert whole.held_out == evaluate_run(load_run(tmp_path / "run"))
    assert whole.held_out._asdict()["rows"] == 7  # of the test split; the last batch is half full
    assert half.held_out._asdict()["loss"] > 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    kinds = {line.get("kind") for line in lines}
    assert {"train", "held_out", "health"} <= kinds
    assert not any("bits_per_byte" in line for line in lines)
    held_out = [line["rows"] for line in lines if line.get("kind") == "held_out"]
    assert held_out == [4, 4]  # two batches of the validation split
    assert [line["loss"] for line in lines if line.get("kind") == "train"][-1] > 0


def test_commands_print_its_lines(config, tmp_path, capsys):
    out = str(tmp_path / "run")
    train(config, out)
    assert main(["eval", out]) == 0
    assert "error" in capsys.readouterr().out
    for command in (["generate", out], ["eval", out, "--task", "regress_numbers"]):
        assert main(command) == 2


def test_its_rows_have_one_length(config):
    assert config.data.sequence == STEPS
    with pytest.raises(ConfigError, match="the rows of the task have one length"):
        override(config, "data.sequence=64")
    assert override(config, "task=none", "data.sequence=64").data.sequence == 64


ON_DEVICES = """
import sys
from miras.config import from_json
from miras.train import RunConfig, train
import tests.train.test_own_objective
config = from_json(RunConfig, sys.argv[1])
print(float(train(config, sys.argv[2]).held_out.loss))
"""


@pytest.mark.exhaustive  # forecasts are tested on devices by default
def test_devices_share_its_rows(config, python, tmp_path):
    from miras.config import to_json

    want = train(config, tmp_path / "one").held_out._asdict()["loss"]
    meshed = override(config, "mesh.fsdp=2", "mesh.tensor=2", "mesh.max_replicated=1")
    done = subprocess.run(
        [*python, "-c", ON_DEVICES, to_json(meshed), str(tmp_path / "four")],
        env=environment(4),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(want, rel=1e-5)


def test_parameters_are_a_models_and_its_heads(config):
    params = nnx.state(Regression().build(config.model, nnx.Rngs(0)), nnx.Param)
    assert {"embed", "groups", "head", "norm"} == set(nnx.to_pure_dict(params))


def test_a_plan_counts_its_model(config):
    params = nnx.state(Regression().build(config.model, nnx.Rngs(0)), nnx.Param)
    found = cell_costs(config)
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    width, rows = config.model.width, config.data.batch * config.train.accumulate
    wider = cell_costs(override(config, f"layers={config.model.layers + 1}"))
    blocks = wider.step_flops - found.step_flops  # of one layer
    ends = 3 * rows * 2 * (width + STEPS * INPUTS * width)
    assert found.step_flops - config.model.layers * blocks == pytest.approx(ends)
