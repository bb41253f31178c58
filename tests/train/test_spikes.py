"""Updates that are skipped for their gradient norm: which ones, and what stays as it was."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.data import make_loader
from miras.errors import ConfigError
from miras.train import TrainConfig, spikes, train
from miras.train.loggers.jsonl import read_metrics
from miras.train.optimizer import optimizer_of
from miras.train.state import create, structure
from miras.train.step import make_train_step


def test_an_update_is_a_spike_over_k_times_the_median_of_the_last_128():
    """Against NumPy's median of a list."""
    rng, times = np.random.default_rng(0), 3.0
    norms = np.exp(rng.normal(size=300)).astype(np.float32)
    norms[[3, 15, 16, 20, 150]] *= 30  # 16 is the first that may be skipped
    window, step = spikes.start(), jax.jit(spikes.observe, static_argnums=2)
    skipped = 0
    for n, norm in enumerate(norms):
        window = step(window, jnp.asarray(norm), times)
        before = norms[max(0, n - 128) : n]
        median = np.median(before) if n else 0.0
        spike = n >= 16 and norm > times * median
        skipped += spike
        np.testing.assert_allclose(window.median, median, rtol=1e-6)
        assert (bool(window.spike), int(window.skipped)) == (spike, skipped), n
    assert skipped > 2


def test_a_lasting_rise_is_not_skipped_for_ever():
    window, step = spikes.start(), jax.jit(spikes.observe, static_argnums=2)
    for norm in [1.0] * 128 + [10.0] * 80:
        window = step(window, jnp.asarray(norm), 4.0)
    assert 0 < window.skipped <= 65
    assert not window.spike


@pytest.fixture(scope="module")
def one(tiny) -> Any:
    """Makes (state before, state after, metrics) of an update after 40 of a given norm."""
    config = tiny("train.skip_spikes=2")
    graphdef, params = structure(config.model)
    optimizer = optimizer_of(config.train, params)
    step = make_train_step(graphdef, optimizer)
    batch = next(iter(make_loader(config.data, "train", align=config.model.chunk)))
    batches = {name: array[None] for name, array in batch.items()}

    def update(norm, alive=True):
        state = jax.jit(lambda: create(config.model, optimizer, 0))()
        opt: Any = state.opt_state
        seen = opt.window._replace(norms=jnp.full(128, norm), seen=jnp.int32(40))
        state = state._replace(opt_state=opt._replace(window=seen))
        before = jax.tree.map(jnp.copy, state)
        return before, *step(state, batches, jnp.array(alive))

    return update


def _same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_a_skipped_update_counts_and_changes_nothing_else(one):
    before, after, metrics = one(1e-6)
    assert metrics.finite
    assert metrics.window.spike
    assert after.step == before.step + 1
    assert _same(after.params, before.params)
    assert _same(after.opt_state.inner, before.opt_state.inner)
    assert after.opt_state.window.skipped == 1
    assert after.opt_state.window.norms[40] == metrics.gradient_norm


def test_another_update_is_applied_and_its_norm_kept(one):
    before, after, metrics = one(1e6)
    assert not metrics.window.spike
    assert not _same(after.params, before.params)
    assert not _same(after.opt_state.inner, before.opt_state.inner)
    assert after.opt_state.window.norms[40] == metrics.gradient_norm
    assert (after.opt_state.window.seen, after.opt_state.window.skipped) == (41, 0)


@pytest.mark.parametrize("norm", [1e-6, 1e6])
def test_a_run_that_has_stopped_keeps_its_window(one, norm):
    before, after, metrics = one(norm, alive=False)
    assert not metrics.finite
    assert _same(after._replace(key=0), before._replace(key=0))


@pytest.mark.slow
def test_a_run_logs_what_it_skips_and_resumes_alike(tiny, tmp_path, console, monkeypatch):
    monkeypatch.setattr(spikes, "FEWEST", 2)
    config = tiny("train.skip_spikes=1.0001", "train.schedule=constant", steps=6)
    whole: Any = train(config, tmp_path / "whole", console=console)
    line = next(x for x in console.file.getvalue().splitlines() if "was skipped" in x)
    assert "times the running median" in line
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    skipped = [x["skipped_updates"] for x in lines if x["kind"] == "train"]
    assert skipped[-1] == whole.state.opt_state.window.skipped > 0
    part = tiny("train.skip_spikes=1.0001", "train.schedule=constant", "train.warmup=2", steps=4)
    train(part, tmp_path / "part", console=console)
    resumed = train(config, tmp_path / "part", console=console)
    assert resumed.resumed_from == 4
    assert _same(resumed.state._replace(key=0), whole.state._replace(key=0))


@pytest.mark.parametrize("value", [1.0, 0.0, -3.0])
def test_a_factor_of_one_or_less_is_an_error(value):
    with pytest.raises(ConfigError, match=f"train.skip_spikes={value} must be greater than 1"):
        TrainConfig(skip_spikes=value)
