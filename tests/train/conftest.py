"""A run small enough to train many times over, on text that the tests write."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from miras.config import override
from miras.data import DataConfig
from miras.models import LanguageModelConfig
from miras.rule.rule import Rule
from miras.train import RunConfig, TrainConfig
from miras.train.runs import lease, mirror


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A folder of forty documents of words, of 100 to 2,000 bytes."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("etaoinshr"), rng.integers(2, 7))) for _ in range(50)]
    for n, size in enumerate(np.geomspace(25, 500, 40).astype(int)):
        (folder / f"{n:02}.txt").write_text(" ".join(rng.choice(words, size)))
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The cache of prepared text."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def tiny(text, prepared):
    """Makes a run's config: one layer of matrix memories, 8 steps, a checkpoint every 2."""
    model = LanguageModelConfig(
        Rule(memory="matrix", bias="dot", retention="none", algorithm="gd"),
        width=16,
        layers=1,
        heads=2,
        chunk=8,
        remat=False,
    )
    data = DataConfig(source=str(text), sequence=32, batch=2, validation=0.2, cache=str(prepared))
    recipe = TrainConfig(
        steps=8,
        warmup=2,
        eval_every=4,
        eval_batches=2,
        log_every=2,
        health_every=4,
        checkpoint_every=2,
    )

    def make(*assignments: str, **train) -> RunConfig:
        config = RunConfig(model, data, dataclasses.replace(recipe, **train))
        return override(config, *assignments)

    return make


@pytest.fixture
def console():
    """A console that writes to memory; `console.file.getvalue()` is what it was told."""
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def store(bucket, monkeypatch):
    """The file system of an empty bucket; threads wait."""
    # No thread renews or uploads on its own, unless a test lets it.
    monkeypatch.setattr(lease, "HEARTBEAT", 3600.0)
    monkeypatch.setattr(lease, "EXPIRY", 3600.0)
    monkeypatch.setattr(mirror, "FLUSH", 3600.0)
    return bucket
