"""A run as a whole: its folder, stopping and going on, damage, NaN and full disks."""

import contextlib
import errno
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from miras.config import plugins
from miras.errors import ConfigError
from miras.train import NonFiniteError, evaluate_run, load_run, program, train
from miras.train.checkpoints import checkpointer as checkpoint
from miras.train.loggers.jsonl import Metrics, read_metrics
from miras.train.runs.run_folder import RunFolder
from miras.train.state import abstract

TIMED = {
    "tokens_per_second", "tokens_per_second_per_device", "step_seconds", "data_wait_seconds",
    "checkpoint_seconds", "compile_seconds", "goodput", "seconds", "time",
}  # fmt: skip

# What the threads of tensorstore log after a failure; see `miras.train.checkpoints.silence`.
ends_badly = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    """A finished run: (result, folder)."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:  # a run keeps the plugins that other tests loaded
        patch.setattr(plugins, "_files", {})
        patch.setattr(plugins, "_modules", [])
        return train(tiny(), out), out


@pytest.fixture
def copy(undisturbed, tmp_path):
    """The finished run's folder, for a test's own use."""
    return shutil.copytree(undisturbed[1], tmp_path / "run")


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_at(monkeypatch, last):
    """Let a run end once it has saved step `last`."""
    save = checkpoint.Checkpoints.save

    def save_and_stop(self, step, state, data):
        save(self, step, state, data)
        if step == last:
            raise StoppedError

    monkeypatch.setattr(checkpoint.Checkpoints, "save", save_and_stop)


def test_a_run_leaves_its_folder(undisturbed, tiny, text):
    result, out = undisturbed
    assert result.resumed_from is None
    assert {p.name for p in out.iterdir()} == {
        "config.json", "config_hash", "data.json", "metrics.jsonl", "tensorboard", "checkpoints",
        "loss.png", "lock", "origin.json", "checkpoint_times.jsonl",
        "status.json",
    }  # fmt: skip
    assert checkpoint.saved_steps(out / "checkpoints") == [4, 6, 8]
    (reading,) = json.loads((out / "data.json").read_text())["readings"]
    assert (reading["source"], reading["read"], reading["left_out"]) == (str(text), 40, {})
    lines = read_metrics(out / "metrics.jsonl")
    steps = {
        kind: [line["step"] for line in lines if line["kind"] == kind]
        for kind in ("train", "held_out", "health")
    }
    assert steps == {"train": [2, 4, 6, 8], "held_out": [4, 8], "health": [4, 8]}
    trained = [line for line in lines if line["kind"] == "train"]
    assert all(line["gradient_norm"] > 0 and line["tokens_per_second"] > 0 for line in trained)
    assert [line.get("compile_seconds", 0) > 0 for line in trained] == [True] + [False] * 3
    assert all(line["step_seconds"] > 0 and line["data_wait_seconds"] >= 0 for line in trained)
    assert [line["steps"] for line in trained] == [2, 2, 2, 2]
    assert trained[1]["checkpoint_seconds"] > 0
    health = next(line for line in lines if line["kind"] == "health")
    assert len(health["inner_loss"]) == len(health["update_ratio"]) == 1
    assert result.held_out.bits_per_byte == pytest.approx(lines[-1]["bits_per_byte"])
    assert RunFolder(out).read_config() == tiny()


def test_a_run_is_read_back_and_measured(undisturbed, text):
    result, out = undisturbed
    run = load_run(out)
    assert (run.step, run.damaged) == (8, {})
    assert evaluate_run(run, batches=2).bits_per_byte == pytest.approx(
        result.held_out.bits_per_byte, rel=1e-6
    )
    everything = evaluate_run(run)
    assert everything.tokens > evaluate_run(run, batches=2).tokens
    assert everything.perplexity == pytest.approx(np.exp(everything.loss))
    assert everything.bits_per_byte == pytest.approx(everything.loss / np.log(2))  # bytes
    elsewhere = evaluate_run(run, str(text / "39.txt"), batches=1)
    assert np.isfinite(elsewhere.loss)


@pytest.mark.parametrize("last", [0, 4])
def test_a_run_that_goes_on_ends_alike(undisturbed, tiny, tmp_path, monkeypatch, console, last):
    with monkeypatch.context() as patch:
        stop_at(patch, last)
        with pytest.raises(StoppedError):
            train(tiny(), tmp_path / "run", console=console)
    result = train(tiny(), tmp_path / "run", console=console)
    assert result.resumed_from == last
    assert f"resuming from step {last} of 8" in console.file.getvalue()
    assert_same(result.state, undisturbed[0].state)
    untimed = [
        [
            {k: v for k, v in line.items() if k not in TIMED}
            for line in read_metrics(out / "metrics.jsonl")
            if line["kind"] != "start"
        ]
        for out in (undisturbed[1], tmp_path / "run")
    ]
    assert untimed[0] == untimed[1]
    begun, *_, ended = [
        x for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "seconds" in x
    ]
    reasons = {"start", "compile", "steps", "checkpoint", "lost", "stopped"}
    assert reasons <= {*ended["seconds"]}
    between = sum(ended["seconds"].values()) - sum(begun["seconds"].values())
    assert between == pytest.approx(ended["time"] - begun["time"], abs=1.0)
    assert ended["goodput"] == ended["seconds"]["steps"] / sum(ended["seconds"].values())


def test_a_finished_run_says_so_and_takes_no_step(undisturbed, tiny, copy, console):
    before = (copy / "metrics.jsonl").read_text()
    result = train(tiny(), copy, console=console)
    assert "is finished: 8 of 8 steps" in console.file.getvalue()
    assert (copy / "metrics.jsonl").read_text() == before
    assert_same(result.state, undisturbed[0].state)


def test_accumulation_takes_its_batches_in_order(tiny, tmp_path, monkeypatch, console):
    whole = train(tiny(accumulate=2, steps=4), tmp_path / "whole", console=console)
    stop_at(monkeypatch, 2)
    with pytest.raises(StoppedError):
        train(tiny(accumulate=2, steps=4), tmp_path / "cut", console=console)
    monkeypatch.undo()
    assert_same(
        train(tiny(accumulate=2, steps=4), tmp_path / "cut", console=console).state, whole.state
    )


@pytest.mark.slow
@ends_badly
def test_any_truncated_file_of_the_newest_checkpoint_is_noticed(undisturbed, copy):
    """Each file in turn is cut in half: the state is read as it was, or an older one is."""
    result, out = undisturbed
    like, good = abstract(result.state), out / "checkpoints"
    fell_back = 0
    files = [p.relative_to(good) for p in sorted((good / "8").rglob("*")) if p.is_file()]
    for file in files:
        shutil.rmtree(copy / "checkpoints")
        shutil.copytree(good, copy / "checkpoints")
        data = (good / file).read_bytes()
        (copy / "checkpoints" / file).write_bytes(data[: len(data) // 2])
        restored = checkpoint.restore(copy / "checkpoints", like)
        assert restored is not None
        if restored.step == 8:
            assert_same(restored.state, result.state)
        else:
            assert (restored.step, list(restored.damaged)) == (6, [8])
            fell_back += 1
    assert fell_back >= 3  # the tree's metadata, the index and the arrays themselves


@ends_badly
@pytest.mark.parametrize("item", ["state", "data"])
def test_a_run_falls_back_past_damage_with_a_warning(undisturbed, tiny, copy, console, item):
    for file in (copy / "checkpoints" / "8" / item).rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-20])
    result = train(tiny(), copy, console=console)
    said = console.file.getvalue()
    assert "warning: checkpoint 8 is damaged and was renamed" in said
    assert "resuming from step 6" in said
    assert result.resumed_from == 6
    assert_same(result.state, undisturbed[0].state)
    assert (copy / "checkpoints" / "8.damaged").is_dir()
    assert checkpoint.saved_steps(copy / "checkpoints")[-1] == 8


@pytest.mark.slow
@ends_badly
def test_all_damaged_is_told_and_nothing_is_thrown_away(tiny, copy, console):
    for file in (copy / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"none of the checkpoints .* \(steps 8, 6, 4"):
        train(tiny(), copy, console=console)
    assert checkpoint.saved_steps(copy / "checkpoints") == [4, 6, 8]


@pytest.mark.slow
def test_changed_text_is_told_and_is_no_damage(tiny, copy, console, text, tmp_path):
    changed = shutil.copytree(text, tmp_path / "changed")
    config = tiny(f"data.source={changed}")
    shutil.rmtree(copy)
    train(config, copy, console=console)
    (changed / "00.txt").write_text("another beginning, another text")
    with pytest.raises(ConfigError, match="belongs to other data, as corpus was"):
        train(config, copy, console=console)
    assert checkpoint.saved_steps(copy / "checkpoints") == [4, 6, 8]


def poison(monkeypatch, parameter, at):
    """Make a parameter NaN before step `at`."""
    compile_step = program.TrainingProgram.compile

    def compile_poisoned(self):
        step = compile_step(self)

        def poisoned(state, batches, alive):
            if int(state.step) == at - 1:

                def spoil(path, x):
                    name = jax.tree_util.keystr(path, simple=True, separator=".")
                    return x.at[-1].set(jnp.nan) if name == parameter else x

                params = jax.tree_util.tree_map_with_path(spoil, state.params)
                state = state._replace(params=params)
            return step(state, batches, alive)

        return poisoned

    monkeypatch.setattr(program.TrainingProgram, "compile", compile_poisoned)


@pytest.mark.parametrize(
    ("parameter", "place"),
    [
        ("groups.blocks.M0.mixer.qkv.linear.kernel", r"layer 1 \(.*output_norm"),
        ("norm.scale", "the output head"),
    ],
)
def test_nan_stops_the_run_and_names_step_and_layer(
    tiny, tmp_path, monkeypatch, console, parameter, place
):
    """Layers are stacked, and the last one's parameters are spoilt: the first layer is sound."""
    poison(monkeypatch, parameter, at=6)
    out = tmp_path / "run"
    with pytest.raises(
        NonFiniteError, match=rf"step 6 is not finite .*{place}.* is step 4"
    ) as stop:
        train(tiny("layers=2"), out, console=console)
    assert "\n" not in str(stop.value)
    assert checkpoint.saved_steps(out / "checkpoints") == [0, 2, 4]
    assert max(line["step"] for line in read_metrics(out / "metrics.jsonl")) == 4
    assert np.isfinite(jax.tree.leaves(load_run(out).model.norm.scale[...])[0]).all()


def test_an_absurd_learning_rate_is_stopped(tiny, tmp_path, console):
    with pytest.raises(NonFiniteError, match=r"step 1 is not finite .*the update.*is step 0"):
        train(tiny(learning_rate=1e30), tmp_path / "run", console=console)


def test_two_runs_in_one_folder_are_refused(tiny, copy, console):
    with RunFolder(copy).locked(), pytest.raises(ConfigError, match="is in use by the run of"):
        train(tiny(), copy, console=console)


@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """(a folder, a function that fills its disk); the disk is real where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = (
        shutil.which("mount")
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )

    def fill_real():
        with contextlib.suppress(OSError), (folder / "rest").open("wb", 0) as rest:
            while True:
                rest.write(bytes(4096))

    def fill_pretended():
        def refuse(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Metrics, "write", refuse)
        monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", refuse)

    yield folder, fill_real if mounted else fill_pretended
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@ends_badly
@pytest.mark.parametrize("when", ["between two runs", "within a run"])
def test_a_full_disk_leaves_the_checkpoints_before_it(tiny, full_disk, monkeypatch, console, when):
    folder, fill = full_disk
    if when == "between two runs":
        with monkeypatch.context() as patch:
            stop_at(patch, 4)
            with pytest.raises(StoppedError):
                train(tiny(), folder / "run", console=console)
        fill()
    else:
        save = checkpoint.Checkpoints.save

        def save_and_fill(self, step, state, data):
            save(self, step, state, data)
            if step == 4:
                self.wait()
                fill()

        monkeypatch.setattr(checkpoint.Checkpoints, "save", save_and_fill)
    with pytest.raises(
        ConfigError, match=r"No space left.*checkpoint is step 4.*free space"
    ) as told:
        train(tiny(), folder / "run", console=console)
    assert "\n" not in str(told.value)
    assert load_run(folder / "run").step == 4
