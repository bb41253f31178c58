"""Checkpoints by themselves: bits that flip on the disk, older formats, and what saving costs."""

import asyncio
import json
import os
import random
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from miras.data import make_loader
from miras.errors import ConfigError
from miras.train.checkpoints.checkpointer import Checkpoints, restore
from miras.train.checkpoints.manifest import DamagedError, Manifest
from miras.train.state import TrainState, abstract


def state_of(step):
    return jax.device_put(
        TrainState(
            params={"w": jnp.sin(step + jnp.arange(300.0)), "b": jnp.ones(3, jnp.bfloat16)},
            opt_state={"m": jnp.full((4, 5), float(step))},
            step=jnp.int32(step),
            key=jax.random.key(step),
        )
    )


def bits_of(state):
    leaves = jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))
    return [np.asarray(leaf).tobytes() for leaf in leaves]


@pytest.fixture
def data(tiny):
    """A loader of the training text."""
    config = tiny()
    return make_loader(config.data, "train", align=config.model.align)


@pytest.fixture
def saved(data, tmp_path):
    """(folder with checkpoints of steps 1 and 2, the place in the data at each)."""
    checkpoints, places = Checkpoints(tmp_path / "saved", 2), {}
    for step in (1, 2):
        next(data)
        checkpoints.save(step, state_of(step), data)
        places[step] = data.get_state()
    checkpoints.close()
    return tmp_path / "saved", places


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 2))]
)
def test_no_flipped_bit_gives_another_state_or_place(seed, saved, data):
    """A bit in each file in turn."""
    folder, places = saved
    rng = random.Random(seed)
    noticed = set()
    files = [path for path in sorted((folder / "2").rglob("*")) if path.stat().st_size]
    for file in filter(os.path.isfile, files):
        whole = file.read_bytes()
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        file.write_bytes(raw)
        found = restore(folder, abstract(state_of(0)), data)
        assert found is not None
        assert found.step == (1 if 2 in found.damaged else 2)
        assert bits_of(found.state) == bits_of(state_of(found.step)), file
        assert data.get_state() == places[found.step], file
        if found.damaged:
            noticed.add(file.parent.name)
        file.write_bytes(whole)
    assert {"data", "d"} <= noticed  # the seal, and the arrays
    assert restore(folder, abstract(state_of(0)), data).damaged == {}


def test_every_bit_of_a_seal_counts(tmp_path):
    """Any flip is noticed, or means the same, as in a space."""

    class Made:
        async def await_creation(self):
            return tmp_path

    def read():
        found = Manifest()
        found._read(tmp_path)
        return found.position, found.leaves

    async def save(seal):
        await (await seal.save(Made()))

    written = {"identity": {"corpus": "0a1b", "seed": None}, "next": 12}, {"params.w": "01ab"}
    asyncio.run(save(Manifest(*written)))
    (file,) = tmp_path.iterdir()
    whole, noticed = file.read_bytes(), 0
    for bit in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        file.write_bytes(raw)
        try:
            assert read() == written
        except (DamagedError, ValueError):
            noticed += 1
    assert noticed > 7 * len(whole)
    file.write_bytes(whole)
    assert read() == written


def test_damage_in_the_identity_is_no_change_of_the_data(saved, data):
    """A flip falls back; other text under a sound seal is told as such."""
    folder, places = saved
    file = next((folder / "2" / "data").glob("process_*"))
    content = json.loads(file.read_text())
    corpus = content["position"]["identity"]["corpus"]
    other = ("1" if corpus[0] == "0" else "0") + corpus[1:]
    file.write_text(file.read_text().replace(corpus, other))
    found = restore(folder, abstract(state_of(0)), data)
    assert (found.step, list(found.damaged)) == (1, [2])
    assert "differs from its" in found.damaged[2]
    assert data.get_state() == places[1]

    data._identity["corpus"] = other
    with pytest.raises(ConfigError, match="belongs to other data, as corpus was"):
        restore(folder, abstract(state_of(0)), data)


def test_two_arrays_that_trade_places_are_noticed(saved):
    """The sums are those of each leaf."""
    folder, _ = saved
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(folder / "1" / "state", folder / "2" / "state")
    found = restore(folder, abstract(state_of(0)))
    assert (found.step, list(found.damaged)) == (1, [2])


def test_a_checkpoint_without_a_digest_is_read(data, tmp_path):
    """As miras 0.1 wrote it."""
    next(data)
    items = {"state": state_of(3), "data": data}
    ocp.save_checkpointables(str(tmp_path / "old" / "3"), items)
    place_then = data.get_state()
    next(data)
    found = restore(tmp_path / "old", abstract(state_of(0)), data)
    assert (found.step, found.damaged) == (3, {})
    assert bits_of(found.state) == bits_of(state_of(3))
    assert data.get_state() == place_then


@pytest.mark.slow
def test_saving_leaves_no_thread_and_no_descriptor(tmp_path, data):
    def held():
        return np.array([len(os.listdir("/proc/self/fd")), threading.active_count()])

    checkpoints, state = Checkpoints(tmp_path / "many", 1), state_of(0)
    counts = []
    for step in range(50):
        checkpoints.save(step, state, data)
        if step % 10 == 9:
            checkpoints.wait()
            counts.append(held())
    checkpoints.close()
    assert (counts[-1] - counts[0] < 5).all()  # not one for each of 40 saves
    before = held()
    for _ in range(8):
        restore(tmp_path / "many", abstract(state))
    assert (held() - before < 5).all()


def test_a_save_asks_for_no_preemption(tmp_path, monkeypatch):
    """Orbax would ask with the step as the counter, which is that of `signals.poll`."""
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    checkpoints = Checkpoints(tmp_path / "saved", 1)
    for step in (1, 2):
        checkpoints.save(step, state_of(step), None)
    checkpoints.close()
    assert asked == []
